// What every shader shares: the pass's inputs and the reading of coded weights.

// Numbers of one pass over the model.
struct Step {
    // Tokens in the pass.
    tokens: u32,
    // Tokens for which logits are wanted.
    selected: u32,
}

// One token of the pass.
struct Row {
    // Vocabulary id.
    token: u32,
    // Position in its sequence, from 0.
    position: u32,
    // The KV cache row of its sequence's position 0.
    cache_start: u32,
    // Unused; keeps rows 16 bytes.
    reserved: u32,
}

// Columns that share one scale.
const GROUP: u32 = 32u;

// Weight kinds as `override KIND` gives them.
const W4: u32 = 0u;
const W8: u32 = 1u;
const F16: u32 = 2u;
const F32: u32 = 3u;

// Index of a workgroup whose count was spread over x and y.
fn group_index(id: vec3<u32>, count: vec3<u32>) -> u32 {
    return id.y * count.x + id.x;
}

// Vectors of four words that one group's codes occupy.
fn group_words(kind: u32) -> u32 {
    return 1u << kind;
}

// The half at `index` of an array of packed halves, given the word that holds it.
fn half_of(word: u32, index: u32) -> f32 {
    let pair = unpack2x16float(word);
    return select(pair.x, pair.y, (index & 1u) == 1u);
}
