//! The common parts of SRANDMEMBER, HRANDFIELD and ZRANDMEMBER: `count`, and draws with repetition.
//!
//! A positive count requests different elements, at most all. A negative count requests `-count`
//! independent draws from all elements: only these replies can be much longer than the data. Redis
//! builds replies with repetition until memory is exhausted. Here a reply with repetition may be as
//! long as the longest string (`proto-max-bulk-len`); a longer reply is removed and refused, so
//! that a single command can't exhaust the memory.

use crate::client::reply::{Mark, ReplyBuf};
use crate::command::ctx::{CmdResult, Ctx};
use crate::error::Error;

/// The number of elements that are drawn in one walk through a packed collection, such as a
/// listpack.
const BATCH: usize = 1024;
/// The length in bytes of the shortest element, an empty string, in a reply.
const SHORTEST: usize = b"$0\r\n\r\n".len();

/// Parses the count of SRANDMEMBER, HRANDFIELD or ZRANDMEMBER. The number without its sign must be
/// valid, too.
pub fn parse_count(ctx: &Ctx) -> Result<i64, Error> {
    match ctx.int(2)? {
        i64::MIN => Err(Error::LONG_RANGE),
        count => Ok(count),
    }
}

/// Parses the count, and the `option` (WITHVALUES or WITHSCORES) that adds a value to each element,
/// which doubles the reply.
pub fn parse_count_of_pairs(ctx: &Ctx, option: &str) -> Result<(i64, bool), Error> {
    let count = parse_count(ctx)?;
    let with_values = ctx.is(3, option);
    if ctx.argv.len() > 4 || (ctx.argv.len() == 4 && !with_values) {
        return Err(Error::SYNTAX);
    }
    if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(Error::OUT_OF_RANGE);
    }
    Ok((count, with_values))
}

/// A reply with randomly drawn elements, which must not exceed `limit` bytes.
pub struct Draws<'a> {
    reply: &'a mut ReplyBuf,
    start: Mark,
    limit: u64,
}

impl Draws<'_> {
    /// Appends one more drawn element to the reply, unless the reply exceeds its limit.
    pub fn show(&mut self, element: impl FnOnce(&mut ReplyBuf)) {
        if !self.too_long() {
            element(self.reply);
        }
    }

    fn too_long(&self) -> bool {
        self.reply.bytes_since(self.start) > self.limit
    }
}

/// Replies with `count` randomly drawn elements. `draw` is called for batches: it draws and appends
/// the number of elements in its argument. `limit` is in bytes.
pub fn reply_draws(
    reply: &mut ReplyBuf,
    (count, with_values): (usize, bool),
    limit: usize,
    mut draw: impl FnMut(&mut Draws, usize),
) -> CmdResult {
    // A client with an output limit is closed when its reply reaches that limit.
    let stopped_earlier = reply.limit != 0 && reply.limit < limit;
    if count.saturating_mul(SHORTEST) > limit && !stopped_earlier {
        return Err(Error::OUT_OF_RANGE);
    }
    let (start, limit) = (reply.mark(), limit as u64);
    reply.elements(count, with_values);
    let mut left = count;
    let mut draws = Draws {
        reply,
        start,
        limit,
    };
    while left > 0 {
        let batch = left.min(BATCH);
        draw(&mut draws, batch);
        left -= batch;
        // A client over its output limit is closed, so its reply need not be complete.
        if draws.reply.overflowed() {
            return Ok(());
        }
        if draws.too_long() {
            draws.reply.truncate(start);
            return Err(Error::OUT_OF_RANGE);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(count: usize, limit: usize) -> (CmdResult, Vec<u8>) {
        let mut reply = ReplyBuf::new(false);
        reply.ok();
        let result = reply_draws(&mut reply, (count, false), limit, |draws, n| {
            (0..n).for_each(|_| draws.show(|reply| reply.bulk(b"member")));
        });
        (result, reply.take_bytes())
    }

    #[test]
    fn a_reply_that_would_be_too_long_is_taken_back() {
        assert_eq!(
            draw(2, 100),
            (
                Ok(()),
                b"+OK\r\n*2\r\n$6\r\nmember\r\n$6\r\nmember\r\n".to_vec()
            )
        );
        let refused = (Err(Error::OUT_OF_RANGE), b"+OK\r\n".to_vec());
        assert_eq!(draw(9, 100), refused, "only the draws show that it is");
        assert_eq!(draw(20_000, 150_000), refused, "after some batches");
        assert_eq!(draw(usize::MAX, 1 << 29), refused, "without a draw");
    }
}
