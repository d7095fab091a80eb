//! Weights that need no file: every value is a hash of the parameter's name and of the element's index, so that this
//! code and `scripts/reference/ten_losses.py` start from the same float32 numbers, bit for bit.

/// FNV-1a of the name's bytes, 64 bits.
fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The `numel` values of parameter `name`, in the row-major order of its layout (convolutions `[out][kh][kw][in]`,
/// linear layers `[out][in]`): uniform in `offset - bound .. offset + bound`.
///
/// Everything is computed in f64, in the order written here, and rounded once to f32: another order may differ in the
/// last bit.
pub fn formula(name: &str, numel: usize, bound: f64, offset: f64) -> Vec<f32> {
    let hash = fnv1a64(name);
    (0..numel as u64)
        .map(|i| {
            // The finaliser of splitmix64.
            let mut z = hash ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            let u = (z >> 40) as f64 / (1u64 << 24) as f64;
            (offset + (2.0 * u - 1.0) * bound) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::formula;

    /// Four values printed by the Python side, as bits.
    #[test]
    fn weights_formula_equals_the_reference_script() {
        let conv = (3.0f64 / 27.0).sqrt() * 2.0f64.sqrt();
        for (name, index, bound, offset, bits) in [
            ("conv1.weight", 0, conv, 0.0, 0xbe2f_33df_u32),
            ("conv1.weight", 431, conv, 0.0, 0xbedf_4154),
            ("layer3.2.bn2.weight", 63, 0.025, 0.25, 0x3e6c_c1c9),
            ("blocks.1.mlp.fc2.bias", 5, 0.02, 0.0, 0xbc78_c12c),
        ] {
            let value = formula(name, index + 1, bound, offset)[index];
            assert_eq!(value.to_bits(), bits, "{name}[{index}] is {value}");
        }
    }
}
