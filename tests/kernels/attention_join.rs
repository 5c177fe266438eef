//! `attention_join`: the second of two dispatches leaves what `attention_decode` does in one, bit for bit.

use super::attending::{Case, Sizes};
use super::attention_decode::{LAYOUTS, run_in, spec};
use super::common::*;
use pipo_wgpu::kernels::CacheKind::F16;
use pipo_wgpu::kernels::attention_decode::{Layout, Spec, is_supported};

#[test]
fn two_dispatches_equal_one() {
    let all = [
        Sizes::new(6, 2, 64, F16),
        Sizes::new(2, 2, 32, F16),
        Sizes { sinks: true, ..Sizes::new(8, 1, 128, F16) },
    ];
    let sizes = all.into_iter().filter(|sizes| is_supported(&gpu().facts, &spec(sizes)));
    for (sizes, layout) in sizes.zip(&LAYOUTS[..2]) {
        let mut case = Case::new(sizes, &[(600, 2), (0, 1), (70, 1)]);
        for int8 in [false, true] {
            let spec = Spec { int8, ..spec(&sizes) };
            let two = Layout { joins: false, ..*layout };
            let (got, want) = (run_in(&case, &spec, &two), run_in(&case, &spec, layout));
            assert_eq!(bits(&got.y), bits(&want.y), "{spec:?} {layout:?}");
            assert!(got.caches == want.caches);
            // One value of a split that is joined.
            case.caches[1][0] ^= 0x4000;
            assert_ne!(bits(&run_in(&case, &spec, &two).y), bits(&want.y), "a wrong value passed");
            case.caches[1][0] ^= 0x4000;
        }
    }
}
