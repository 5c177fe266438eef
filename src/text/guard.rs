//! Sets a tokenizer up so that control tokens come from marked text alone.

use tokenizers::normalizers::{NormalizerWrapper, Replace, Sequence};
use tokenizers::{AddedToken, NormalizedString, Normalizer};

use crate::error::Result;
use crate::text::marks::{Controls, Spelling};

/// Makes control tokens findable in marked text only: they are searched for before anything is
/// normalised, and what stands for their first characters in text is restored after that.
pub(super) fn guard(
    inner: &mut tokenizers::Tokenizer,
    unknown: Option<&str>,
) -> tokenizers::Result<Result<Controls>> {
    let normalizer = inner.get_normalizer().cloned();
    let is_plain = |text: &str| match &normalizer {
        None => true,
        Some(normalizer) => {
            let mut normalized = NormalizedString::from(text);
            normalizer.normalize(&mut normalized).is_ok() && normalized.get() == text
        }
    };
    // An added token that is not special may be a word or a run of spaces; as a sign of a
    // template it begins with something else.
    let is_sign =
        |text: &str| text.starts_with(|c: char| !c.is_alphanumeric() && !c.is_whitespace() && c != '▁');
    let tokens = inner.get_added_tokens_decoder().into_values();
    let tokens: Vec<AddedToken> = tokens
        .filter(|token| token.special || (is_sign(&token.content) && is_plain(&token.content)))
        .collect();
    let is_known = |token: &&AddedToken| unknown != Some(token.content.as_str());
    let spelling = |token: &AddedToken| Spelling { text: token.content.clone(), special: token.special };
    let controls = match Controls::new(tokens.iter().filter(is_known).map(spelling).collect()) {
        Ok(controls) => controls,
        Err(error) => return Ok(Err(error)),
    };
    let early = tokens.into_iter().filter(|token| token.normalized).map(|token| token.normalized(false));
    let (special, others): (Vec<_>, Vec<_>) = early.partition(|token| token.special);
    inner.add_special_tokens(special)?;
    inner.add_tokens(others)?;
    let restored = controls.restored().into_iter();
    let restored =
        restored.map(|(c, stand_in)| Replace::new(stand_in.to_string(), c.to_string()).map(Into::into));
    let mut normalizers: Vec<NormalizerWrapper> = restored.collect::<tokenizers::Result<_>>()?;
    if !normalizers.is_empty() {
        normalizers.extend(normalizer);
        inner.with_normalizer(Some(Sequence::new(normalizers)))?;
    }
    inner.set_encode_special_tokens(false);
    Ok(Ok(controls))
}
