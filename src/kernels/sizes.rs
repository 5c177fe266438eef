//! Classes of matrices by size, each of which may be multiplied in a shape of its own.

use serde::{Deserialize, Serialize};

/// A class of matrices `[rows, cols]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SizeClass {
    /// Whether it has few elements: launching its kernel takes a good part of the time.
    pub small: bool,
    /// How its sides compare.
    pub form: Form,
}

/// How the sides of a matrix compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// About as many rows as columns: queries, keys and values, and the way out of attention.
    Square,
    /// Many more rows: the way into an MLP, the head.
    Tall,
    /// Many more columns: the way out of an MLP.
    Wide,
}

/// Elements of the largest matrix that counts as small.
const SMALL_MAX: u64 = 6 << 20;
/// From this ratio of sides on a matrix is tall or wide.
const RATIO: u32 = 2;
const FORMS: [Form; 3] = [Form::Square, Form::Tall, Form::Wide];

impl SizeClass {
    /// All of them.
    pub const ALL: [SizeClass; 6] = {
        let mut all = [SizeClass { small: true, form: Form::Square }; 6];
        let mut i = 0;
        while i < all.len() {
            all[i] = SizeClass { small: i < FORMS.len(), form: FORMS[i % FORMS.len()] };
            i += 1;
        }
        all
    };

    /// The class of a matrix.
    pub const fn of(rows: u32, cols: u32) -> Self {
        let form = if rows / RATIO >= cols {
            Form::Tall
        } else if cols / RATIO >= rows {
            Form::Wide
        } else {
            Form::Square
        };
        SizeClass { small: rows as u64 * cols as u64 <= SMALL_MAX, form }
    }

    const fn number(self) -> usize {
        self.form as usize + if self.small { 0 } else { FORMS.len() }
    }
}

/// A choice for each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BySize<S>([S; SizeClass::ALL.len()]);

impl<S: Copy> BySize<S> {
    /// The same for all.
    pub const fn same(choice: S) -> Self {
        BySize([choice; SizeClass::ALL.len()])
    }

    /// The choice for a matrix.
    pub const fn of(&self, rows: u32, cols: u32) -> S {
        self.0[SizeClass::of(rows, cols).number()]
    }

    /// Changes the choice for a class.
    pub fn set(&mut self, class: SizeClass, choice: S) {
        self.0[class.number()] = choice;
    }

    /// Every class's choice.
    pub fn iter(&self) -> impl Iterator<Item = (SizeClass, S)> {
        SizeClass::ALL.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_matrix_has_one_class() {
        for (number, class) in SizeClass::ALL.into_iter().enumerate() {
            assert_eq!(class.number(), number);
        }
        let class = |small, form| SizeClass { small, form };
        for (rows, cols, expected) in [
            (4096, 4096, class(false, Form::Square)),
            (6144, 4096, class(false, Form::Square)),
            (28_672, 4096, class(false, Form::Tall)),
            (4096, 14_336, class(false, Form::Wide)),
            (768, 768, class(true, Form::Square)),
            (4096, 768, class(true, Form::Tall)),
            (768, 2048, class(true, Form::Wide)),
            (1, 1, class(true, Form::Square)),
            (u32::MAX, u32::MAX, class(false, Form::Square)),
        ] {
            assert_eq!(SizeClass::of(rows, cols), expected, "{rows} x {cols}");
        }
    }

    #[test]
    fn a_choice_is_found_where_it_was_put() {
        let mut choices = BySize::same(0);
        choices.set(SizeClass::of(28_672, 4096), 7);
        assert_eq!(choices.of(128_256, 4096), 7);
        assert_eq!(choices.of(4096, 4096), 0);
        assert_eq!(choices.iter().filter(|(_, choice)| *choice == 7).count(), 1);
    }
}
