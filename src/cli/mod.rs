//! The command line: verbs, options, progress and figures.
