//! Small numbers in few bits.

use serde::{Deserialize, Serialize};

/// How numbers below a limit lie in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// Five numbers below 3 in a byte: `a + 3 b + 9 c + 27 d + 81 e`.
    Ternary,
    /// So many bits each, the lowest first, across the borders of bytes.
    Bits(u32),
}

impl Storage {
    /// The least that numbers below `count` need.
    pub fn for_count(count: usize) -> Self {
        match count {
            0..=2 => Storage::Bits(1),
            3 => Storage::Ternary,
            _ => Storage::Bits(usize::BITS - (count - 1).leading_zeros()),
        }
    }

    /// Bytes for that many numbers.
    pub fn bytes(self, numbers: usize) -> usize {
        match self {
            Storage::Ternary => numbers.div_ceil(5),
            Storage::Bits(bits) => (numbers * bits as usize).div_ceil(8),
        }
    }

    /// Whether it is one that this program writes.
    pub fn is_known(self) -> bool {
        self == Storage::Ternary || matches!(self, Storage::Bits(1..=16))
    }

    /// The bytes of numbers.
    pub fn pack(self, numbers: &[u16]) -> Vec<u8> {
        match self {
            Storage::Ternary => {
                let byte = |five: &[u16]| five.iter().rev().fold(0, |sum, number| 3 * sum + (*number as u8).min(2));
                numbers.chunks(5).map(byte).collect()
            }
            Storage::Bits(bits) => {
                let mut bytes = vec![0u8; self.bytes(numbers.len())];
                for (i, number) in numbers.iter().enumerate() {
                    let place = i * bits as usize;
                    let spread = (u32::from(*number) << (place % 8)).to_le_bytes();
                    bytes[place / 8..].iter_mut().zip(spread).for_each(|(byte, part)| *byte |= part);
                }
                bytes
            }
        }
    }

    /// The first `count` numbers of bytes; `None` where there are fewer.
    pub fn unpack(self, bytes: &[u8], count: usize) -> Option<Vec<u16>> {
        if bytes.len() != self.bytes(count) {
            return None;
        }
        Some(match self {
            Storage::Ternary => {
                let number = |i: usize| u16::from(bytes[i / 5] / [1, 3, 9, 27, 81][i % 5] % 3);
                (0..count).map(number).collect()
            }
            Storage::Bits(bits) => {
                let mask = (1u32 << bits) - 1;
                let number = |i: usize| {
                    let place = i * bits as usize;
                    let part = |offset: usize| {
                        bytes.get(place / 8 + offset).map_or(0, |byte| u32::from(*byte) << (8 * offset))
                    };
                    (((part(0) | part(1) | part(2)) >> (place % 8)) & mask) as u16
                };
                (0..count).map(number).collect()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Storage;

    #[test]
    fn numbers_come_back() {
        for count in [2usize, 3, 4, 5, 8, 15, 16, 17, 100, 256, 257, 65536] {
            let storage = Storage::for_count(count);
            for length in [0, 1, 4, 5, 6, 7, 8, 9, 31, 64, 1001] {
                let numbers: Vec<u16> = (0..length).map(|i| (i * 7919 % count) as u16).collect();
                let bytes = storage.pack(&numbers);
                assert_eq!(storage.unpack(&bytes, length).unwrap(), numbers, "{count} {length}");
                assert!(storage.is_known());
                let mut longer = bytes.clone();
                longer.push(0);
                assert_eq!(storage.unpack(&longer, length), None);
            }
        }
        assert_eq!(Storage::for_count(3).bytes(100), 20);
        assert_eq!([4, 8, 9, 16, 17, 256].map(Storage::for_count), [2, 3, 4, 4, 5, 8].map(Storage::Bits));
    }

    #[test]
    fn layout() {
        assert_eq!(Storage::Ternary.pack(&[1, 0, 2, 0, 0, 2]), [1 + 18, 2]);
        assert_eq!(Storage::Bits(4).pack(&[1, 2, 15]), [0x21, 0x0f]);
        assert_eq!(Storage::Bits(3).pack(&[7, 0, 7]), [0b1100_0111, 0b1]);
    }
}
