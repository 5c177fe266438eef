//! Text to tokens and tokens back to text.
