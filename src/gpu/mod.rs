//! Every wgpu object is made here: adapter choice, device, buffers, compute pipelines.
