//! One decoder whose differences are data: from config.json to units and operations.
