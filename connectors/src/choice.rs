//! Even choices that follow from a seed: the same on every machine, in any order.

/// Even choices for one value of one row, each the next of a sequence.
///
/// The sequence is that of SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Choices {
    state: u64,
}

impl Choices {
    /// The choices for the value `salt`, below 64, of row `number`.
    pub(crate) const fn new(seed: u64, number: u64, salt: u64) -> Self {
        Self { state: mix(seed ^ mix(number.wrapping_mul(64).wrapping_add(salt))) }
    }

    /// 64 even bits.
    pub(crate) const fn bits(&mut self) -> u64 {
        let bits = mix(self.state);
        self.state = self.state.wrapping_add(STEP);
        bits
    }

    /// A number in `[0, limit)`.
    pub(crate) const fn below(&mut self, limit: u32) -> u32 {
        below(self.bits() >> 32, limit)
    }
}

/// The step of the sequence.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// An even choice of 32 bits scaled to `[0, limit)`.
pub(crate) const fn below(even: u64, limit: u32) -> u32 {
    ((even * limit as u64) >> 32) as u32
}

/// The finaliser of SplitMix64 behind one step of its sequence.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(STEP);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
