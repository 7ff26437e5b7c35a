//! A list of arguments as one: every argument of a command costs something of its own at every step
//! of its way, and a commit has many. Scripts take it apart with `cmsgpack.unpack`.

use bytes::{BufMut, Bytes};

/// A list under construction, in MessagePack.
#[derive(Default)]
pub(super) struct Packed {
    count: usize,
    bytes: Vec<u8>,
}

impl Packed {
    pub fn with_capacity(bytes: usize) -> Self {
        Self { count: 0, bytes: Vec::with_capacity(bytes) }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn text(&mut self, text: &[u8]) {
        self.count += 1;
        match text.len() {
            length @ 0..32 => self.bytes.put_u8(0xa0 | length as u8),
            length => match u16::try_from(length) {
                Ok(length) => {
                    self.bytes.put_u8(0xda);
                    self.bytes.put_u16(length);
                }
                Err(_) => {
                    self.bytes.put_u8(0xdb);
                    // Nothing that is stored is of more than 4 GiB: a request is not.
                    self.bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
                }
            },
        }
        self.bytes.extend_from_slice(text);
    }

    /// A number that a float64 holds exactly, for the scripts have no others.
    pub fn number(&mut self, number: i64) {
        self.count += 1;
        match u8::try_from(number) {
            Ok(small @ 0..128) => self.bytes.put_u8(small),
            _ => {
                self.bytes.put_u8(0xd3);
                self.bytes.put_i64(number);
            }
        }
    }

    pub fn count(&mut self, count: usize) {
        self.number(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub fn append(&mut self, other: &Self) {
        self.count += other.count;
        self.bytes.extend_from_slice(&other.bytes);
    }

    /// The list as an argument.
    pub fn finish(self) -> Bytes {
        let mut whole = Vec::with_capacity(5 + self.bytes.len());
        match u16::try_from(self.count) {
            Ok(count) => {
                whole.put_u8(0xdc);
                whole.put_u16(count);
            }
            Err(_) => {
                whole.put_u8(0xdd);
                whole.put_u32(u32::try_from(self.count).unwrap_or(u32::MAX));
            }
        }
        whole.extend_from_slice(&self.bytes);
        whole.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_message_pack() {
        let mut list = Packed::default();
        list.text(b"ab");
        list.text(&[b'x'; 32]);
        list.number(127);
        list.number(-1);
        list.count(128);
        let mut more = Packed::default();
        more.text(b"");
        more.append(&list);
        assert_eq!(more.len(), 6);
        let expected = [
            &[0xdc, 0, 6, 0xa0, 0xa2, b'a', b'b', 0xda, 0, 32][..],
            &[b'x'; 32],
            &[127, 0xd3, 255, 255, 255, 255, 255, 255, 255, 255, 0xd3, 0, 0, 0, 0, 0, 0, 0, 128],
        ];
        assert_eq!(more.finish(), expected.concat());
    }
}
