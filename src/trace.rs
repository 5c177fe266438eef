//! Records tasks on lanes and writes a timeline that Perfetto opens.
