//! Prefetch hints.
//!
//! Rows and lists of a large catalog far exceed the cache, and an event touches some forty of them at random. Prefetched, the
//! misses overlap; one after another, they are most of an event's cost.

/// Cache lines are 64 bytes on most targets; with 128 every second hint is redundant.
const LINE: usize = 64;

/// Hints that a value will be read soon.
#[inline]
pub(crate) fn soon<T>(value: &T) {
    hint(std::ptr::from_ref(value).cast());
}

/// Hints that a whole slice will be read soon.
#[inline]
pub(crate) fn all_soon<T>(values: &[T]) {
    let bytes = size_of_val(values);
    for offset in (0..bytes).step_by(LINE) {
        hint(values.as_ptr().cast::<u8>().wrapping_add(offset));
    }
}

#[inline]
#[expect(unsafe_code, reason = "the instruction has no safe form; it reads nothing and cannot fault, whatever the address")]
fn hint(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it has no effect that a program can see, for any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(place.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; the instruction changes neither memory, stack nor flags.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) place, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = place;
}
