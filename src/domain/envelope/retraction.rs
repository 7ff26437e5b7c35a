//! The mark of a record whose run was undone, relative to the record.

use super::CorruptEnvelope::{self, OutOfRange, Truncated};
use crate::domain::provenance::ProvenanceId;
use crate::domain::record::{Record, Retraction, UndoAct, Version};
use crate::domain::time::Timestamp;
use crate::domain::varint::{put_signed, put_unsigned, take_signed, take_unsigned};

pub fn put_retraction(out: &mut Vec<u8>, record: &Record, retraction: &Retraction) {
    put_act(out, record.version, record.written_at, &retraction.undone);
    match &retraction.reinstated {
        None => put_unsigned(out, 0),
        Some(reinstated) => put_act(out, retraction.undone.version, retraction.undone.at, reinstated),
    }
}

pub fn take_retraction(
    bytes: &mut &[u8],
    version: Version,
    written_at: Timestamp,
) -> Result<Retraction, CorruptEnvelope> {
    let undone = take_act(bytes, version, written_at)?.ok_or(OutOfRange("retraction"))?;
    Ok(Retraction { undone, reinstated: take_act(bytes, undone.version, undone.at)? })
}

/// What is undone is older than what undoes it, so that no act is without versions between them: a
/// zero in place of their number says that there is none.
fn put_act(out: &mut Vec<u8>, version: Version, at: Timestamp, act: &UndoAct) {
    put_unsigned(out, act.version.saturating_sub(version));
    put_signed(out, act.at.as_millis() - at.as_millis());
    put_unsigned(out, act.provenance.0);
}

fn take_act(bytes: &mut &[u8], version: Version, at: Timestamp) -> Result<Option<UndoAct>, CorruptEnvelope> {
    let later = take_unsigned(bytes).ok_or(Truncated)?;
    if later == 0 {
        return Ok(None);
    }
    let delay = take_signed(bytes).ok_or(Truncated)?;
    let at = at.as_millis().checked_add(delay).and_then(Timestamp::from_millis);
    Ok(Some(UndoAct {
        version: version.checked_add(later).ok_or(OutOfRange("retraction"))?,
        at: at.ok_or(OutOfRange("retraction"))?,
        provenance: ProvenanceId(take_unsigned(bytes).ok_or(Truncated)?),
    }))
}
