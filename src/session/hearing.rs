//! Who hears of prompts' tokens as they are read.

use super::Session;
use super::batch::Batch;
use crate::error::Result;

impl<'a> Session<'a> {
    /// [`Batch::tell`].
    pub fn tell(&mut self, hear: impl FnMut(u32) + 'a) {
        self.0.tell(hear);
    }
}

impl<'a> Batch<'a> {
    /// Tells `hear` of each pass over prompts how many tokens it has read, once the GPU has.
    pub fn tell(&mut self, hear: impl FnMut(u32) + 'a) {
        self.hear = Some(Box::new(hear));
    }

    pub(super) fn tell_of(&mut self, tokens: u32) -> Result<()> {
        let Some(hear) = &mut self.hear else { return Ok(()) };
        self.engine.gpu().finish("a pass over a prompt")?;
        hear(tokens);
        Ok(())
    }
}
