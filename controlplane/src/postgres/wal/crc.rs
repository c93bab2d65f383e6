//! CRC-32C, with which PostgreSQL guards each record of its log.

const POLYNOMIAL: u32 = 0x82F6_3B78;

/// Table `k` advances a byte that is followed by `k` others.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut t = [[0u32; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut bit = 0;
        while bit < 8 {
            c = if c & 1 == 1 { POLYNOMIAL ^ (c >> 1) } else { c >> 1 };
            bit += 1;
        }
        t[0][i] = c;
        i += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut i = 0;
        while i < 256 {
            let c = t[k - 1][i];
            t[k][i] = t[0][(c & 0xFF) as usize] ^ (c >> 8);
            i += 1;
        }
        k += 1;
    }
    t
}

/// The checksum of several pieces, one after the other.
pub(super) fn crc32c(pieces: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for piece in pieces {
        let mut eights = piece.chunks_exact(8);
        for e in &mut eights {
            let low = crc.to_le_bytes();
            let byte = |i: usize| usize::from(if i < 4 { e[i] ^ low[i] } else { e[i] });
            crc = (0..8).fold(0, |acc, i| acc ^ TABLES[7 - i][byte(i)]);
        }
        for b in eights.remainder() {
            crc = TABLES[0][usize::from(crc.to_le_bytes()[0] ^ b)] ^ (crc >> 8);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_checksums() {
        assert_eq!(crc32c(&[b"123456789"]), 0xE306_9283);
        assert_eq!(crc32c(&[&[0; 32]]), 0x8A91_36AA);
        assert_eq!(crc32c(&[&[0xFF; 32]]), 0x62A8_AB43);
        assert_eq!(crc32c(&[b"1234", b"", b"56789"]), 0xE306_9283);
    }
}
