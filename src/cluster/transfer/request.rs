//! The arguments of CLUSTER MIGRATESLOTS and CLUSTER SYNCSLOTS, by which the nodes of a migration
//! job talk to each other.

use super::ranges::Ranges;
use crate::cluster::name::Name;
use crate::db::slot::SLOTS;

/// A message without arguments between the source and the target of a migration job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    Ack,
    SnapshotEof,
    RequestPause,
    Paused,
    RequestFailover,
    FailoverGranted,
}

impl Word {
    /// The message as it is sent: the word after CLUSTER SYNCSLOTS.
    pub fn text(self) -> &'static str {
        match self {
            Word::Ack => "ACK",
            Word::SnapshotEof => "SNAPSHOT-EOF",
            Word::RequestPause => "REQUEST-PAUSE",
            Word::Paused => "PAUSED",
            Word::RequestFailover => "REQUEST-FAILOVER",
            Word::FailoverGranted => "FAILOVER-GRANTED",
        }
    }

    fn parse(text: &[u8]) -> Option<Word> {
        let words = [
            Word::Ack,
            Word::SnapshotEof,
            Word::RequestPause,
            Word::Paused,
            Word::RequestFailover,
            Word::FailoverGranted,
        ];
        let mut words = words.into_iter();
        words.find(|word| text.eq_ignore_ascii_case(word.text().as_bytes()))
    }
}

/// CLUSTER SYNCSLOTS ESTABLISH, by which the source asks the target to begin a migration job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Establish {
    pub source: Name,
    pub name: Name,
    pub ranges: Ranges,
}

/// CLUSTER SYNCSLOTS FINISH, by which the target informs its replicas how a migration job ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finish {
    pub name: Name,
    pub state: FinalState,
    pub message: String,
}

/// How a migration job ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FinalState {
    Success,
    Failed,
    Cancelled,
}

impl FinalState {
    /// The word for the state in CLUSTER SYNCSLOTS FINISH.
    pub fn text(self) -> &'static str {
        match self {
            FinalState::Success => "SUCCESS",
            FinalState::Failed => "FAILED",
            FinalState::Cancelled => "CANCELLED",
        }
    }
}

/// A parsed CLUSTER SYNCSLOTS command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sync {
    Word(Word),
    Establish(Establish),
    Finish(Finish),
    /// CAPA, the capabilities of the other side, is ignored, as no capabilities are defined yet.
    Capabilities,
}

const SYNTAX: &str = "syntax error";

impl Sync {
    /// Parses the arguments behind CLUSTER SYNCSLOTS. `Err` is the text of the error reply, without
    /// `ERR`.
    pub fn parse(args: &[&[u8]]) -> Result<Sync, String> {
        let Some((verb, rest)) = args.split_first() else {
            return Err(SYNTAX.into());
        };
        if rest.is_empty()
            && let Some(word) = Word::parse(verb)
        {
            return Ok(Sync::Word(word));
        }
        match verb.to_ascii_lowercase().as_slice() {
            b"establish" => Establish::parse(rest).map(Sync::Establish),
            b"finish" => Finish::parse(rest).map(Sync::Finish),
            b"capa" => Ok(Sync::Capabilities),
            _ => Err(SYNTAX.into()),
        }
    }
}

/// Sets a field of a command that may occur only once; a syntax error if it is set already or its
/// value is invalid.
fn set<T>(field: &mut Option<T>, value: Option<T>) -> Result<(), String> {
    if field.is_some() || value.is_none() {
        return Err(SYNTAX.into());
    }
    *field = value;
    Ok(())
}

impl Establish {
    fn parse(mut args: &[&[u8]]) -> Result<Establish, String> {
        let (mut source, mut name, mut ranges) = (None, None, None);
        while let Some((field, rest)) = args.split_first() {
            let value = rest.first();
            let mut used = 1;
            match field.to_ascii_lowercase().as_slice() {
                b"source" => set(&mut source, value.and_then(|text| Name::parse(text)))?,
                b"name" => set(&mut name, value.and_then(|text| Name::parse(text)))?,
                b"slotsrange" if ranges.is_none() => {
                    let (parsed, count) = Ranges::parse(rest)?;
                    ranges = Some(parsed);
                    used = count;
                }
                _ => return Err(SYNTAX.into()),
            }
            args = &rest[used..];
        }
        match (source, name, ranges) {
            (Some(source), Some(name), Some(ranges)) => Ok(Establish {
                source,
                name,
                ranges,
            }),
            _ => Err(SYNTAX.into()),
        }
    }

    /// Makes the request of an import job that is named in a snapshot (RDB). The snapshot does not
    /// name the source, so the request's `source` is meaningless.
    pub fn of_snapshot(name: &[u8], ranges: &[(u64, u64)]) -> Option<Establish> {
        let name = Name::parse(name)?;
        let mut all = Ranges::default();
        for (first, last) in ranges {
            let slot = |n: u64| u16::try_from(n).ok().filter(|n| usize::from(*n) < SLOTS);
            all.add(slot(*first)?, slot(*last)?).ok()?;
        }
        Some(Establish {
            source: name,
            name,
            ranges: all,
        })
    }

    /// Makes the request of an import job from a text in a snapshot (RDB): the job's name, and
    /// ranges such as `0-5 7-7`.
    pub fn of_field(text: &str) -> Option<Establish> {
        let (name, ranges) = text.split_once(' ')?;
        let range = |text: &str| {
            let (first, last) = text.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        let ranges: Option<Vec<(u64, u64)>> = ranges.split(' ').map(range).collect();
        Establish::of_snapshot(name.as_bytes(), &ranges?)
    }

    /// The whole command with its arguments, to be sent or propagated.
    pub fn command(&self) -> Vec<Vec<u8>> {
        let texts = ["CLUSTER", "SYNCSLOTS", "ESTABLISH", "SOURCE"];
        let mut argv: Vec<Vec<u8>> = texts.map(|text| text.into()).into();
        argv.push(self.source.as_bytes().to_vec());
        argv.push("NAME".into());
        argv.push(self.name.as_bytes().to_vec());
        argv.push("SLOTSRANGE".into());
        for (first, last) in self.ranges.iter() {
            argv.extend([first, last].map(|slot| slot.to_string().into_bytes()));
        }
        argv
    }
}

impl Finish {
    fn parse(mut args: &[&[u8]]) -> Result<Finish, String> {
        let (mut state, mut name, mut message) = (None, None, None);
        while let Some((field, rest)) = args.split_first() {
            let Some((value, rest)) = rest.split_first() else {
                return Err(SYNTAX.into());
            };
            match field.to_ascii_lowercase().as_slice() {
                b"state" => {
                    let states = [
                        FinalState::Success,
                        FinalState::Failed,
                        FinalState::Cancelled,
                    ];
                    let is_it =
                        |state: &FinalState| value.eq_ignore_ascii_case(state.text().as_bytes());
                    let found = states.into_iter().find(is_it);
                    // A replica must end the job even if its primary sends an unknown state.
                    set(&mut state, Some(found.unwrap_or(FinalState::Failed)))?;
                }
                b"name" => set(&mut name, Name::parse(value))?,
                b"message" => {
                    let text = String::from_utf8_lossy(value).into_owned();
                    set(&mut message, Some(text))?;
                }
                _ => return Err(SYNTAX.into()),
            }
            args = rest;
        }
        match (state, name) {
            (Some(state), Some(name)) => Ok(Finish {
                name,
                state,
                message: message.unwrap_or_default(),
            }),
            _ => Err(SYNTAX.into()),
        }
    }

    /// The whole command with its arguments, to be sent or propagated.
    pub fn command(&self) -> Vec<Vec<u8>> {
        let name = self.name.to_string();
        let argv = [
            "CLUSTER",
            "SYNCSLOTS",
            "FINISH",
            "STATE",
            self.state.text(),
            "NAME",
            &name,
            "MESSAGE",
            &self.message,
        ];
        argv.map(|text| text.as_bytes().to_vec()).into()
    }
}

/// One request of CLUSTER MIGRATESLOTS: the slots, and the name of the target node.
pub type Wish = (Ranges, Name);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Sync, String> {
        let args: Vec<&[u8]> = text.split_whitespace().map(str::as_bytes).collect();
        Sync::parse(&args)
    }

    #[test]
    fn what_is_written_is_read() {
        let name = |byte: u8| Name::parse(&[byte; 40]).expect("a name");
        let mut ranges = Ranges::default();
        ranges.add(0, 5).expect("a range");
        ranges.add(9, 9).expect("a range");
        let establish = Establish {
            source: name(b'a'),
            name: name(b'b'),
            ranges,
        };
        let command = establish.command();
        let args: Vec<&[u8]> = command[2..].iter().map(Vec::as_slice).collect();
        assert_eq!(Sync::parse(&args), Ok(Sync::Establish(establish)));
        let finish = Finish {
            name: name(b'b'),
            state: FinalState::Failed,
            message: "two words".into(),
        };
        let command = finish.command();
        let args: Vec<&[u8]> = command[2..].iter().map(Vec::as_slice).collect();
        assert_eq!(Sync::parse(&args), Ok(Sync::Finish(finish)));
        assert_eq!(parse("Request-Pause"), Ok(Sync::Word(Word::RequestPause)));
    }

    #[test]
    fn mistakes_are_errors() {
        let a = "a".repeat(40);
        let good = format!("SOURCE {a} NAME {a} SLOTSRANGE 0 0");
        assert!(parse(&format!("ESTABLISH {good}")).is_ok());
        for (text, error) in [
            ("", "syntax error"),
            ("UNKNOWN", "syntax error"),
            ("ACK ACK", "syntax error"),
            ("ESTABLISH", "syntax error"),
            ("FINISH STATE SUCCESS", "syntax error"),
            (&format!("ESTABLISH SOURCE {a} NAME {a}"), "syntax error"),
            (&format!("ESTABLISH {good} {good}"), "syntax error"),
            (&format!("ESTABLISH {good} BAD value"), "syntax error"),
            (&format!("ESTABLISH {good} NAME"), "syntax error"),
            (
                &format!("ESTABLISH SOURCE {a} NAME {a} SLOTSRANGE 0"),
                "No end slot for final slot range",
            ),
            (
                &format!("ESTABLISH SOURCE short NAME {a} SLOTSRANGE 0 0"),
                "syntax error",
            ),
        ] {
            assert_eq!(parse(text), Err(error.into()), "{text}");
        }
    }
}
