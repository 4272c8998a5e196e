//! Compressed files of Valkey 9.2: a header of seven bytes, then one LZ4 frame with a whole RDB.
//!
//! ```text
//!   V C S | version 1 | codec 1 = LZ4 | 0 | kind 1 = RDB | LZ4 frame: REDIS.. or VALKEY.. ... EOF
//! ```
//!
//! The LZ4 frame has checksums of its own, so the checksum at the end of the RDB is 0.
//! **Limits:** the frame format bounds a block to 4 MiB, and at most two blocks are in memory. This
//! server reads compressed files and does not write them.

/// The first bytes of a compressed RDB file.
pub const MAGIC: [u8; 3] = *b"VCS";

const VERSION: u8 = 1;
const LZ4: u8 = 1;
const ZSTD: u8 = 2;
const RDB: u8 = 1;
const STREAM: u8 = 2;

/// Checks the four bytes after [`MAGIC`] of a compressed RDB file. `Err` is the reason why the
/// compressed file can't be read.
pub fn check(header: [u8; 4]) -> Result<(), String> {
    match header {
        [VERSION, LZ4, 0, RDB] => Ok(()),
        [VERSION, ZSTD, 0, RDB] => Err("Zstd is not supported".into()),
        [VERSION, LZ4 | ZSTD, 0, STREAM] => Err("it is a replication stream".into()),
        [VERSION, codec, 0, RDB] => Err(format!("codec {codec} is unknown")),
        [version, ..] if version != VERSION => Err(format!("version {version} is unknown")),
        _ => Err("its header is malformed".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::*;
    use crate::persist::rdb::load;
    use crate::persist::rio::Reader;

    /// A compressed RDB file as Valkey writes it: the header, and the LZ4 frame of `plain`.
    fn compressed(plain: &[u8]) -> Vec<u8> {
        let info = FrameInfo::new()
            .block_mode(BlockMode::Linked)
            .block_size(BlockSize::Max64KB)
            .block_checksums(true)
            .content_checksum(true);
        let file = [&MAGIC[..], &[VERSION, LZ4, 0, RDB]].concat();
        let mut encoder = FrameEncoder::with_frame_info(info, file);
        encoder.write_all(plain).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn read_all(file: &[u8], plain: usize) -> Result<(u32, Vec<u8>), String> {
        let mut source = file;
        let mut reader = Reader::new(&mut source, Some(file.len() as u64));
        let version = load::read_version(&mut reader, false).map_err(|e| format!("{e:?}"))?;
        let mut out = Vec::new();
        let read = reader.get_into(plain as u64 - 9, &mut out);
        let ended = read.and_then(|()| reader.end_frame());
        ended.map_err(|e| e.to_string())?;
        Ok((version, out))
    }

    #[test]
    fn what_is_in_the_frame_is_read() {
        let mut plain = b"VALKEY080".to_vec();
        plain.extend((0..300_000u32).flat_map(|n| (n / 7).to_le_bytes()));
        let file = compressed(&plain);
        assert!(file.len() < plain.len() / 2);
        let read = read_all(&file, plain.len());
        assert_eq!(read, Ok((80, plain[9..].to_vec())));
        // The checksums of the LZ4 frame detect a damaged byte, and a missing end.
        for at in [20, 1000, file.len() - 1] {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            assert!(read_all(&damaged, plain.len()).is_err(), "{at}");
        }
        for cut in (0..200).chain([file.len() - 9, file.len() - 5, file.len() - 1]) {
            assert!(read_all(&file[..cut], plain.len()).is_err(), "{cut}");
        }
    }

    #[test]
    fn another_header_is_refused_by_name() {
        let file = |header: [u8; 4]| [&MAGIC[..], &header, &[0; 64]].concat();
        for (header, text) in [
            ([1, 2, 0, 1], "Zstd is not supported"),
            ([1, 9, 0, 1], "codec 9 is unknown"),
            ([2, 1, 0, 1], "version 2 is unknown"),
            ([1, 1, 1, 1], "its header is malformed"),
            ([1, 1, 0, 2], "it is a replication stream"),
        ] {
            let refused = read_all(&file(header), 100).expect_err("a refusal");
            assert!(refused.contains(text), "{refused}");
        }
        let refused = read_all(&file([1, 1, 0, 1]), 100);
        assert!(refused.is_err(), "no frame follows: {refused:?}");
    }
}
