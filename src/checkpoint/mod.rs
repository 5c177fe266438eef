//! Answers "tensor by name, dtype, shape" from Hugging Face folders; alone knows their file formats.
