//! What a grammar may take before llguidance begins to count: it gives the first letters of a text all the time and
//! memory that they want, which were seen to be half a minute and 7 GB for a hundred kilobytes.

use std::panic::AssertUnwindSafe;

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::derivre::ExprRef;
use llguidance::earley::lexerspec::LexerSpec;
use llguidance::{ParserFactory, TokenParser, panic_utils};

/// Alternatives that a regular expression's letters may leave for the next ones, summed over all its places: four
/// bytes each. So many are there for 4,000 letters that may all be left out.
const ALTERNATIVES_MAX: u64 = 1 << 23;
/// States of a text's lexer at most, each of up to two kilobytes.
const STATES_MAX: usize = 50_000;

/// Sets what llguidance counts itself.
pub(super) fn set(limits: &mut ParserLimits) {
    limits.verbose_errors = false;
    limits.max_lexer_states = STATES_MAX;
}

/// Why a grammar is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// The parser of a grammar whose first letters take no more than later ones may.
///
/// # Errors
/// What is wrong with it, or takes too much, in llguidance's own words where they are its own.
pub(super) fn parser(factory: &ParserFactory, grammar: TopLevelGrammar) -> Result<TokenParser, String> {
    let (limits, env) = (factory.limits(), factory.tok_env().clone());
    let made = || {
        let (grammar, lexer) = GrammarInit::Serialized(grammar).to_internal(Some(env), limits.clone())?;
        affordable(&lexer, limits).map_err(Refused)?;
        factory.create_parser_from_init_default(GrammarInit::Internal(grammar, lexer))
    };
    // It says of much that is too large by a panic.
    panic_utils::catch_unwind(AssertUnwindSafe(made)).map_err(|problem| problem.to_string())
}

/// Refuses what a parser would do at once and without limits, if there is too much of it.
fn affordable(lexer: &LexerSpec, limits: &ParserLimits) -> Result<(), String> {
    if alternatives(lexer) > ALTERNATIVES_MAX {
        return Err("too many letters in a row may be left out; give a smaller one".into());
    }
    let mut states = lexer.to_regex_vec(&mut limits.clone()).map_err(|problem| problem.to_string())?;
    states.set_fuel(limits.initial_lexer_fuel);
    let first = states.initial_state(&lexer.all_lexemes());
    for byte in 0..=u8::MAX {
        states.transition(first, byte);
        if let Some(problem) = states.get_error() {
            return Err(format!(
                "its first letters take too long to tell apart ({problem}); give a smaller one"
            ));
        }
    }
    Ok(())
}

/// How many ways there are to go on behind a letter, summed over all sequences in the expressions. Where the first
/// of two parts may be left out, the second's first letters come on top of its own, and are listed anew for each
/// part in front.
fn alternatives(lexer: &LexerSpec) -> u64 {
    let expressions = lexer.regex_builder.exprset();
    let mut ways = vec![1u64; expressions.len()];
    let mut sum = 0u64;
    // Parts are there before what they are parts of.
    for id in 1..expressions.len() {
        let expression = ExprRef::new(id as u32);
        let of = |part: &ExprRef| ways.get(part.as_usize()).copied().unwrap_or(1);
        let found = match expressions.get(expression).args() {
            // Also of two that stand side by side, for which it is too many by one of the two.
            [first, rest] if expressions.is_nullable(*first) => of(first).saturating_add(of(rest)),
            [first, _] => of(first),
            parts => parts.iter().map(of).max().unwrap_or(1),
        };
        sum = sum.saturating_add(if found > 1 { found } else { 0 });
        ways[id] = found;
    }
    sum
}
