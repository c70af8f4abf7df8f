//! Aligned memory.

use crate::Error;
use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use core::ptr::NonNull;

/// An allocation of its own alignment, zero at first, that never moves.
#[derive(Debug)]
pub(crate) struct Memory {
    pointer: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its bytes as a `Box<[u8]>` does.
unsafe impl Send for Memory {}
// SAFETY: likewise.
unsafe impl Sync for Memory {}

impl Memory {
    /// `align` is a power of two.
    pub(crate) fn new(bytes: usize, align: usize) -> Result<Memory, Error> {
        let layout = Layout::from_size_align(bytes.max(1), align)
            .map_err(|_| Error::OutOfMemory { bytes })?;
        // SAFETY: the layout's size is not zero.
        let pointer =
            NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(Error::OutOfMemory { bytes })?;
        Ok(Memory { pointer, layout })
    }

    pub(crate) fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the allocation has this size, is initialized, and is borrowed with `self`.
        unsafe { core::slice::from_raw_parts(self.pointer.as_ptr(), self.layout.size()) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) }
    }
}
