//! Cutting text into records: lines, or CSV records whose quoted fields may contain line ends.
//!
//! A [`RecordCutter`] makes a single pass over a growing buffer, whatever the size of the pieces. It finds where
//! records end and does not interpret them.

use memchr::{memchr, memchr_iter, memchr2};

/// The framing of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// A line end.
    Lines,
    /// A line end outside a quoted field.
    Quoted {
        /// Opens and closes a field; doubled inside a field, it is literal.
        quote: u8,
        /// Removes the special meaning of the next character inside a quoted field.
        escape: Option<u8>,
        /// Separates fields.
        delimiter: u8,
    },
}

impl Framing {
    /// Whether every quoted field of a record ends at a delimiter or at the record's end. Where
    /// text follows a closing quote, a stray quote opened the field.
    pub(crate) fn is_well_quoted(self, record: &[u8]) -> bool {
        let Self::Quoted { quote, escape, delimiter } = self else { return true };
        let mut cutter = RecordCutter::new(self);
        while cutter.enter_quotes(record, quote, delimiter, &mut |_, _| {}) {
            if !cutter.quoted {
                continue;
            }
            while cutter.quoted {
                if !cutter.leave_quotes(record, quote, escape) {
                    return true;
                }
            }
            let next = record.get(cutter.at);
            if next.is_some_and(|b| *b != delimiter && !matches!(b, b'\r' | b'\n')) {
                return false;
            }
        }
        true
    }
}

/// A finder of the ends of records in a growing buffer.
#[derive(Debug, Clone)]
pub(crate) struct RecordCutter {
    framing: Framing,
    /// Position in the buffer up to which it was cut.
    at: usize,
    /// Start of the unfinished record.
    start: usize,
    quoted: bool,
}

impl RecordCutter {
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, at: 0, start: 0, quoted: false }
    }

    /// The start of the unfinished record.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Whether the end of the buffer is inside a quoted field.
    pub(crate) fn is_quoted(&self, buffer: &[u8]) -> bool {
        // A quote at the very end closes its field when nothing follows.
        self.quoted && !(self.at + 1 == buffer.len() && self.is_quote(buffer.get(self.at)))
    }

    /// Forgets the first `bytes` of the buffer, which were removed.
    pub(crate) fn shift(&mut self, bytes: usize) {
        self.at = self.at.saturating_sub(bytes);
        self.start = self.start.saturating_sub(bytes);
    }

    /// Starts a new record at `at`, outside quotes.
    pub(crate) fn restart(&mut self, at: usize) {
        (self.at, self.start, self.quoted) = (at, at, false);
    }

    /// Cuts up to the end of `buffer`; passes `(start, one past the line end)` of each record to `record`.
    pub(crate) fn cut(&mut self, buffer: &[u8], mut record: impl FnMut(usize, usize)) {
        match self.framing {
            Framing::Lines => self.cut_lines(buffer, buffer.len(), &mut record),
            Framing::Quoted { quote, escape, delimiter } => {
                while self.at < buffer.len() {
                    let on = if self.quoted {
                        self.leave_quotes(buffer, quote, escape)
                    } else {
                        self.enter_quotes(buffer, quote, delimiter, &mut record)
                    };
                    if !on {
                        return;
                    }
                }
            }
        }
    }

    fn is_quote(&self, byte: Option<&u8>) -> bool {
        matches!((self.framing, byte), (Framing::Quoted { quote, .. }, Some(b)) if *b == quote)
    }

    /// Ends a record at each line end before `to`.
    fn cut_lines(&mut self, buffer: &[u8], to: usize, record: &mut impl FnMut(usize, usize)) {
        let from = self.at;
        for i in memchr_iter(b'\n', buffer.get(from..to).unwrap_or_default()) {
            record(self.start, from + i + 1);
            self.start = from + i + 1;
        }
        self.at = to;
    }

    /// Advances to the next quote that opens a field. `false`: there is none.
    fn enter_quotes(
        &mut self,
        buffer: &[u8],
        quote: u8,
        delimiter: u8,
        record: &mut impl FnMut(usize, usize),
    ) -> bool {
        let Some(i) = memchr(quote, buffer.get(self.at..).unwrap_or_default()) else {
            self.cut_lines(buffer, buffer.len(), record);
            return false;
        };
        let found = self.at + i;
        self.cut_lines(buffer, found, record);
        let before = found.checked_sub(1).and_then(|b| buffer.get(b));
        self.quoted = found == self.start || before.is_some_and(|b| *b == delimiter);
        self.at = found + 1;
        true
    }

    /// Advances to the quote that closes the field. `false`: more bytes are needed.
    fn leave_quotes(&mut self, buffer: &[u8], quote: u8, escape: Option<u8>) -> bool {
        let rest = buffer.get(self.at..).unwrap_or_default();
        let found = match escape {
            Some(escape) => memchr2(quote, escape, rest),
            None => memchr(quote, rest),
        };
        let Some(i) = found else {
            self.at = buffer.len();
            return false;
        };
        self.at += i;
        let is_escape = escape.is_some() && buffer.get(self.at).copied() == escape;
        let Some(next) = buffer.get(self.at + 1) else { return false };
        if is_escape || *next == quote {
            self.at += 2;
        } else {
            self.quoted = false;
            self.at += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, framing: Framing, piece: usize) -> Vec<String> {
        let mut cutter = RecordCutter::new(framing);
        let (mut buffer, mut out) = (vec![], vec![]);
        for bytes in text.as_bytes().chunks(piece) {
            buffer.extend_from_slice(bytes);
            let mut ends = vec![];
            cutter.cut(&buffer, |a, b| ends.push((a, b)));
            for (a, b) in ends {
                out.push(String::from_utf8(buffer[a..b].to_vec()).unwrap());
            }
        }
        out
    }

    #[test]
    fn any_piece_size_gives_the_same_records() {
        let framing = Framing::Quoted { quote: b'"', escape: Some(b'\\'), delimiter: b',' };
        let text =
            "a,b\n\"x\ny\",2\n\"he said \"\"\n\"\"\",3\nno\"quote,4\n\"\\\"\n\",5\n,\"\"\n\n7\n";
        let whole = cut(text, framing, text.len());
        assert_eq!(
            whole,
            [
                "a,b\n",
                "\"x\ny\",2\n",
                "\"he said \"\"\n\"\"\",3\n",
                "no\"quote,4\n",
                "\"\\\"\n\",5\n",
                ",\"\"\n",
                "\n",
                "7\n"
            ]
        );
        for piece in 1..12 {
            assert_eq!(cut(text, framing, piece), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn lines_know_no_quotes() {
        assert_eq!(cut("\"a\nb\"\n", Framing::Lines, 2), ["\"a\n", "b\"\n"]);
    }
}
