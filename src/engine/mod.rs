//! The loaded model: runs passes over the units, resident or streamed.
