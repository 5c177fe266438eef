//! What differs between operating systems, in one place, each with a portable fallback.
