//! Aligned memory.

use crate::Error;
use alloc::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use core::ptr::NonNull;

/// An allocation of its own alignment, zero at first, that never moves. From [`LARGE_PAGE`] bytes on
/// it asks for large pages, where the system has such a call: they are zeroed in a quarter of the
/// time, and a run misses fewer translations of addresses. The last page is a large one if that
/// wastes no more than half of it.
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
        let large = bytes >= LARGE_PAGE && align <= LARGE_PAGE && large_pages::KNOWN;
        let advised = bytes.saturating_add(LARGE_PAGE / 2) / LARGE_PAGE * LARGE_PAGE;
        let (size, align) = match large {
            true => (bytes.max(advised), LARGE_PAGE),
            false => (bytes.max(1), align),
        };
        let layout =
            Layout::from_size_align(size, align).map_err(|_| Error::OutOfMemory { bytes })?;
        // SAFETY: the layout's size is not zero.
        let pointer = unsafe { if large { alloc(layout) } else { alloc_zeroed(layout) } };
        let pointer = NonNull::new(pointer).ok_or(Error::OutOfMemory { bytes })?;
        if large {
            // SAFETY: the allocation is `size` bytes long, which is not less than `advised`.
            unsafe {
                large_pages::advise(pointer, advised);
                pointer.as_ptr().write_bytes(0, size);
            }
        }
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

/// What Linux has on the targets here (on others the advice is refused).
const LARGE_PAGE: usize = 1 << 21;

#[cfg(all(feature = "std", target_os = "linux"))]
mod large_pages {
    use core::ffi::c_void;
    use core::ptr::NonNull;

    pub(super) const KNOWN: bool = true;
    const MADV_HUGEPAGE: i32 = 14;

    unsafe extern "C" {
        fn madvise(address: *mut c_void, bytes: usize, advice: i32) -> i32;
    }

    /// # Safety
    /// The memory is one allocation.
    pub(super) unsafe fn advise(memory: NonNull<u8>, bytes: usize) {
        // SAFETY: the advice changes nothing but the size of pages.
        let _ = unsafe { madvise(memory.as_ptr().cast(), bytes, MADV_HUGEPAGE) };
    }
}

#[cfg(not(all(feature = "std", target_os = "linux")))]
mod large_pages {
    use core::ptr::NonNull;

    pub(super) const KNOWN: bool = false;

    /// # Safety
    /// The memory is one allocation.
    pub(super) unsafe fn advise(_: NonNull<u8>, _: usize) {}
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_zero_and_aligned() {
        for bytes in [0, 1, 100, LARGE_PAGE - 1, LARGE_PAGE, 3 * LARGE_PAGE / 2, 5 * LARGE_PAGE + 7]
        {
            let memory = Memory::new(bytes, 64).unwrap();
            assert!(memory.bytes().len() >= bytes);
            assert!(memory.bytes().len() <= bytes.max(1) + LARGE_PAGE / 2);
            assert!(memory.bytes().iter().all(|&byte| byte == 0));
            assert!(memory.pointer().addr().get().is_multiple_of(64));
        }
        assert_eq!(
            Memory::new(usize::MAX / 2, 64).unwrap_err(),
            Error::OutOfMemory { bytes: usize::MAX / 2 }
        );
        assert!(Memory::new(usize::MAX, 64).is_err());
    }
}
