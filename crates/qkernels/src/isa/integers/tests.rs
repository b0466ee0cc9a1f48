//! Every operation of every instruction set that this CPU has, lane by lane against plain Rust.

use crate::isa::{Isa, Kernel, MOST_LANES, available, dispatch_on};

/// Words of four bytes, with the extremes of every type among them.
fn words(salt: u32) -> [i32; MOST_LANES] {
    let edges = [0, -1, i32::MIN, i32::MAX, 0x8080_8080u32 as i32, 0x7f7f_7f7f, 0x8000_8000u32 as i32, 0x7fff_7fff];
    std::array::from_fn(|i| match (i as u32 + salt) % 3 {
        0 => edges[(i + salt as usize) % edges.len()],
        _ => (i as u32 + 1).wrapping_mul(0x9e37_79b9).rotate_left(salt).wrapping_mul(salt | 1) as i32,
    })
}

struct Words([i32; MOST_LANES], [i32; MOST_LANES], [i32; MOST_LANES]);

impl Kernel for Words {
    type Output = ();
    const DOT_PRODUCTS: bool = true;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Words(a, b, c) = self;
        // SAFETY: the arrays hold any vector.
        let load = |x: &[i32; MOST_LANES]| unsafe { isa.load_i32_at(x.as_ptr()) };
        let check = |name: &str, found: I::I32, expected: &dyn Fn(usize) -> i32| {
            let mut out = [7; MOST_LANES + 1];
            // SAFETY: the array holds any vector.
            unsafe { isa.store_i32_at(out.as_mut_ptr(), found) };
            for (i, x) in out.iter().enumerate().take(I::LANES) {
                assert_eq!(*x, expected(i), "{name}, lane {i} of {a:x?}, {b:x?}, {c:x?}");
            }
            assert!(out[I::LANES..].iter().all(|x| *x == 7), "{name} wrote too far");
        };
        let (va, vb, vc) = (load(&a), load(&b), load(&c));
        check("splat", isa.splat_i32(-5), &|_| -5);
        check("add", isa.add_i32(va, vb), &|i| a[i].wrapping_add(b[i]));
        check("sub", isa.sub_i32(va, vb), &|i| a[i].wrapping_sub(b[i]));
        check("shift", isa.shift_left_i32::<3>(va), &|i| a[i] << 3);
        check("mul", isa.mul_i32(va, vb), &|i| a[i].wrapping_mul(b[i]));
        check("shift right", isa.shift_right_i32(va, 5), &|i| a[i] >> 5);
        check("xor", isa.xor_i32(va, vb), &|i| a[i] ^ b[i]);
        let halves = |i: usize, of: fn(i16, i16) -> i16| {
            let [high, low] = [16, 0].map(|by| of((a[i] >> by) as i16, (b[i] >> by) as i16) as u16);
            (u32::from(high) << 16 | u32::from(low)) as i32
        };
        check("add halves", isa.add_i16(va, vb), &|i| halves(i, i16::wrapping_add));
        check("sub halves", isa.sub_i16(va, vb), &|i| halves(i, i16::wrapping_sub));
        check("shift halves", isa.shift_left_i16::<2>(va), &|i| halves(i, |a, _| a << 2));
        let bytes: Vec<u8> = a.iter().flat_map(|a| a.to_le_bytes()).collect();
        // SAFETY: there are four bytes for each lane.
        let wide = unsafe { isa.load_u8_as_halves_at(bytes.as_ptr()) };
        check("bytes as halves", wide, &|i| i32::from(bytes[2 * i]) | i32::from(bytes[2 * i + 1]) << 16);
        check("dot of bytes", isa.dot_u8_i8(va, vb, vc), &|i| {
            let products = a[i].to_le_bytes().into_iter().zip(b[i].to_le_bytes());
            products.fold(c[i], |sum, (a, b)| sum.wrapping_add(i32::from(a) * i32::from(b as i8)))
        });
        check("dot of halves", isa.dot_i16(va, vb, vc), &|i| {
            let low = i32::from(a[i] as i16) * i32::from(b[i] as i16);
            c[i].wrapping_add(low).wrapping_add((a[i] >> 16) * (b[i] >> 16))
        });
        let mut floats = [0.0; MOST_LANES];
        isa.store(&mut floats, isa.to_f32(va));
        for i in 0..I::LANES {
            assert_eq!(floats[i].to_bits(), (a[i] as f32).to_bits());
        }
        let eighths: [f32; MOST_LANES] = std::array::from_fn(|i| (a[i] >> 8) as f32 / 8.0);
        check("to i32", isa.to_i32(isa.load(&eighths)), &|i| eighths[i].round_ties_even() as i32);
    }
}

#[test]
fn words_of_bytes_and_halves() {
    for id in available() {
        for salt in 0..60 {
            dispatch_on(id, Words(words(salt), words(salt * 7 + 1), words(salt * 3 + 2)));
        }
        let all = |x: u32| [x as i32; MOST_LANES];
        dispatch_on(id, Words(all(0xffff_ffff), all(0x8080_8080), all(0)));
        dispatch_on(id, Words(all(0xffff_ffff), all(0x7f7f_7f7f), all(0)));
        dispatch_on(id, Words(all(0x8000_8000), all(0x8000_8000), all(0)));
    }
}

struct Bytes;

impl Kernel for Bytes {
    type Output = ();
    const DOT_PRODUCTS: bool = true;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for salt in 0..256 {
            let x: [i32; MOST_LANES] = std::array::from_fn(|i| (17 * i as i32 + salt) % 256);
            let bytes = x.map(|x| x as u8);
            for count in 0..=I::LANES {
                let (mut out, mut back) = ([9u8; MOST_LANES + 1], [1.0; MOST_LANES]);
                // SAFETY: the arrays hold any vector, and `count` bytes lie in them.
                unsafe {
                    let x = isa.load_i32_at(x.as_ptr());
                    isa.store_as_u8_part_at(out.as_mut_ptr(), count, x);
                    assert_eq!(out[..count], bytes[..count]);
                    assert!(out[count..].iter().all(|x| *x == 9), "a partial store wrote too far");
                    isa.store(&mut back, isa.load_u8_part_at(out.as_ptr(), count));
                    isa.store_as_u8_at(out.as_mut_ptr(), x);
                }
                for i in 0..I::LANES {
                    assert_eq!(back[i], if i < count { f32::from(bytes[i]) } else { 0.0 });
                }
                assert_eq!(out[..I::LANES], bytes[..I::LANES]);
                assert!(out[I::LANES..].iter().all(|x| *x == 9), "a store wrote too far");
                // SAFETY: the array holds any vector.
                isa.store(&mut back, unsafe { isa.load_u8_at(out.as_ptr()) });
                assert!((0..I::LANES).all(|i| back[i] == f32::from(bytes[i])));
            }
        }
    }
}

#[test]
fn bytes_as_numbers() {
    available().for_each(|id| dispatch_on(id, Bytes));
}

struct Rows([[u8; 4 * MOST_LANES]; 4]);

impl Kernel for Rows {
    type Output = ();
    const DOT_PRODUCTS: bool = true;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let rows = &self.0;
        for count in 0..=4 * I::LANES {
            // SAFETY: so many bytes lie in each row.
            let read = rows.each_ref().map(|row| unsafe { isa.load_bytes_part_at(row.as_ptr(), count) });
            let words = isa.in_order(isa.interleave_bytes(read));
            for (i, words) in words.into_iter().enumerate() {
                let mut found = [0; MOST_LANES];
                // SAFETY: the array holds any vector.
                unsafe { isa.store_i32_at(found.as_mut_ptr(), words) };
                for (lane, word) in found.into_iter().enumerate().take(I::LANES) {
                    let place = i * I::LANES + lane;
                    let expected = rows.each_ref().map(|row| if place < count { row[place] } else { 0 });
                    assert_eq!(word.to_le_bytes(), expected, "byte {place} of {count}");
                }
            }
        }
    }
}

#[test]
fn bytes_of_four_rows_side_by_side() {
    let row = |r: usize| std::array::from_fn(|i| (1 + i * 4 + r) as u8);
    available().for_each(|id| dispatch_on(id, Rows([row(0), row(1), row(2), row(3)])));
}
