//! Operations to instructions, one for each width, and for half of it.

use super::Width;
use crate::kir::{Binary, Comparison, Shift, Type, Unary};
use iced_x86::Code::{self, *};

/// The instruction for 256 bits and the one for 512; and the same for the lower halves of those
/// vectors, if there are such.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    pub whole: [Code; 2],
    pub half: Option<[Code; 2]>,
}

/// One that does not depend on the width, or that is for one width alone.
pub(super) const fn both(code: Code) -> Codes {
    Codes { whole: [code, code], half: None }
}

/// For one width alone, and its half.
const fn only(whole: Code, half: Code) -> Codes {
    Codes { whole: [whole, whole], half: Some([half, half]) }
}

/// In the order 256, 512, 128, lower half of 512.
const fn vectors([avx2, avx512, half_avx2, half_avx512]: [Code; 4]) -> Codes {
    Codes { whole: [avx2, avx512], half: Some([half_avx2, half_avx512]) }
}

pub(super) const LOAD: Codes = vectors([
    VEX_Vmovups_ymm_ymmm256,
    EVEX_Vmovups_zmm_k1z_zmmm512,
    VEX_Vmovups_xmm_xmmm128,
    EVEX_Vmovups_ymm_k1z_ymmm256,
]);
pub(super) const STORE: Codes = vectors([
    VEX_Vmovups_ymmm256_ymm,
    EVEX_Vmovups_zmmm512_k1z_zmm,
    VEX_Vmovups_xmmm128_xmm,
    EVEX_Vmovups_ymmm256_k1z_ymm,
]);
/// A single element, beside zeros: later loads of it need not wait until the store is done, as they do for one
/// with a mask.
pub(super) const LOAD_ONE: Codes = vectors([
    VEX_Vmovss_xmm_m32,
    EVEX_Vmovss_xmm_k1z_m32,
    VEX_Vmovss_xmm_m32,
    EVEX_Vmovss_xmm_k1z_m32,
]);
pub(super) const STORE_ONE: Codes = vectors([
    VEX_Vmovss_m32_xmm,
    EVEX_Vmovss_m32_k1_xmm,
    VEX_Vmovss_m32_xmm,
    EVEX_Vmovss_m32_k1_xmm,
]);
/// With AVX-512, loads take masks themselves.
pub(super) const MASKED_LOAD: Codes =
    only(VEX_Vmaskmovps_ymm_ymm_m256, VEX_Vmaskmovps_xmm_xmm_m128);
pub(super) const BROADCAST: Codes = vectors([
    VEX_Vbroadcastss_ymm_m32,
    EVEX_Vbroadcastss_zmm_k1z_xmmm32,
    VEX_Vbroadcastss_xmm_m32,
    EVEX_Vbroadcastss_ymm_k1z_xmmm32,
]);
/// Bytes to 4-byte integers, from memory.
pub(super) const WIDEN_UNSIGNED: Codes = vectors([
    VEX_Vpmovzxbd_ymm_xmmm64,
    EVEX_Vpmovzxbd_zmm_k1z_xmmm128,
    VEX_Vpmovzxbd_xmm_xmmm32,
    EVEX_Vpmovzxbd_ymm_k1z_xmmm64,
]);
pub(super) const WIDEN_SIGNED: Codes = vectors([
    VEX_Vpmovsxbd_ymm_xmmm64,
    EVEX_Vpmovsxbd_zmm_k1z_xmmm128,
    VEX_Vpmovsxbd_xmm_xmmm32,
    EVEX_Vpmovsxbd_ymm_k1z_xmmm64,
]);
/// 4-byte integers to bytes, to memory.
pub(super) const NARROW: Codes = only(EVEX_Vpmovdb_xmmm128_k1z_zmm, EVEX_Vpmovdb_xmmm64_k1z_ymm);
/// The same of two bytes.
pub(super) const WIDEN_UNSIGNED_16: Codes = vectors([
    VEX_Vpmovzxwd_ymm_xmmm128,
    EVEX_Vpmovzxwd_zmm_k1z_ymmm256,
    VEX_Vpmovzxwd_xmm_xmmm64,
    EVEX_Vpmovzxwd_ymm_k1z_xmmm128,
]);
pub(super) const WIDEN_SIGNED_16: Codes = vectors([
    VEX_Vpmovsxwd_ymm_xmmm128,
    EVEX_Vpmovsxwd_zmm_k1z_ymmm256,
    VEX_Vpmovsxwd_xmm_xmmm64,
    EVEX_Vpmovsxwd_ymm_k1z_xmmm128,
]);
pub(super) const NARROW_16: Codes =
    only(EVEX_Vpmovdw_ymmm256_k1z_zmm, EVEX_Vpmovdw_xmmm128_k1z_ymm);
/// Two-byte floats to floats.
pub(super) const OF_F16: Codes = vectors([
    VEX_Vcvtph2ps_ymm_xmmm128,
    EVEX_Vcvtph2ps_zmm_k1z_ymmm256_sae,
    VEX_Vcvtph2ps_xmm_xmmm64,
    EVEX_Vcvtph2ps_ymm_k1z_xmmm128,
]);
/// Floats to two-byte floats, in memory or in the lower half of a register.
pub(super) const TO_F16: Codes = vectors([
    VEX_Vcvtps2ph_xmmm128_ymm_imm8,
    EVEX_Vcvtps2ph_ymmm256_k1z_zmm_imm8_sae,
    VEX_Vcvtps2ph_xmmm64_xmm_imm8,
    EVEX_Vcvtps2ph_xmmm128_k1z_ymm_imm8,
]);
/// Two bytes from memory, in all of a register's lower half.
pub(super) const BROADCAST_16: Codes = vectors([
    VEX_Vpbroadcastw_xmm_xmmm16,
    EVEX_Vpbroadcastw_ymm_k1z_xmmm16,
    VEX_Vpbroadcastw_xmm_xmmm16,
    EVEX_Vpbroadcastw_xmm_k1z_xmmm16,
]);
/// Exclusive or; of a register with itself, zero.
pub(super) const XOR: Codes = vectors([
    VEX_Vpxor_ymm_ymm_ymmm256,
    EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32,
    VEX_Vpxor_xmm_xmm_xmmm128,
    EVEX_Vpxord_ymm_k1z_ymm_ymmm256b32,
]);
pub(super) const AND: Codes = vectors([
    VEX_Vpand_ymm_ymm_ymmm256,
    EVEX_Vpandd_zmm_k1z_zmm_zmmm512b32,
    VEX_Vpand_xmm_xmm_xmmm128,
    EVEX_Vpandd_ymm_k1z_ymm_ymmm256b32,
]);
pub(super) const ROUND: Codes = vectors([
    VEX_Vroundps_ymm_ymmm256_imm8,
    EVEX_Vrndscaleps_zmm_k1z_zmmm512b32_imm8_sae,
    VEX_Vroundps_xmm_xmmm128_imm8,
    EVEX_Vrndscaleps_ymm_k1z_ymmm256b32_imm8,
]);
pub(super) const COMPARE: Codes = vectors([
    VEX_Vcmpps_ymm_ymm_ymmm256_imm8,
    EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae,
    VEX_Vcmpps_xmm_xmm_xmmm128_imm8,
    EVEX_Vcmpps_kr_k1_ymm_ymmm256b32_imm8,
]);
/// Into a mask register.
pub(super) const COMPARE_I32: Codes =
    only(EVEX_Vpcmpd_kr_k1_zmm_zmmm512b32_imm8, EVEX_Vpcmpd_kr_k1_ymm_ymmm256b32_imm8);
pub(super) const EQUAL_I32: Codes =
    only(VEX_Vpcmpeqd_ymm_ymm_ymmm256, VEX_Vpcmpeqd_xmm_xmm_xmmm128);
pub(super) const GREATER_I32: Codes =
    only(VEX_Vpcmpgtd_ymm_ymm_ymmm256, VEX_Vpcmpgtd_xmm_xmm_xmmm128);
pub(super) const SELECT: Codes = vectors([
    VEX_Vblendvps_ymm_ymm_ymmm256_ymm,
    EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32,
    VEX_Vblendvps_xmm_xmm_xmmm128_xmm,
    EVEX_Vblendmps_ymm_k1z_ymm_ymmm256b32,
]);
/// For half a vector, too: the table takes all of it.
pub(super) const LOOKUP: Codes = both(VEX_Vpermd_ymm_ymm_ymmm256);
pub(super) const LOOKUP_WIDE: Codes =
    only(EVEX_Vpermd_zmm_k1z_zmm_zmmm512b32, EVEX_Vpermd_ymm_k1z_ymm_ymmm256b32);
pub(super) const FIRST: Codes = vectors([
    VEX_Vblendps_ymm_ymm_ymmm256_imm8,
    EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32,
    VEX_Vblendps_xmm_xmm_xmmm128_imm8,
    EVEX_Vblendmps_ymm_k1z_ymm_ymmm256b32,
]);
pub(super) const MUL_ADD_213: Codes = vectors([
    VEX_Vfmadd213ps_ymm_ymm_ymmm256,
    EVEX_Vfmadd213ps_zmm_k1z_zmm_zmmm512b32_er,
    VEX_Vfmadd213ps_xmm_xmm_xmmm128,
    EVEX_Vfmadd213ps_ymm_k1z_ymm_ymmm256b32,
]);
pub(super) const MUL_ADD_231: Codes = vectors([
    VEX_Vfmadd231ps_ymm_ymm_ymmm256,
    EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er,
    VEX_Vfmadd231ps_xmm_xmm_xmmm128,
    EVEX_Vfmadd231ps_ymm_k1z_ymm_ymmm256b32,
]);
pub(super) const SUB_I32: Codes = vectors([
    VEX_Vpsubd_ymm_ymm_ymmm256,
    EVEX_Vpsubd_zmm_k1z_zmm_zmmm512b32,
    VEX_Vpsubd_xmm_xmm_xmmm128,
    EVEX_Vpsubd_ymm_k1z_ymm_ymmm256b32,
]);

/// Four products of bytes, added to a sum.
pub(super) const DOT: Codes = vectors([
    VEX_Vpdpbusd_ymm_ymm_ymmm256,
    EVEX_Vpdpbusd_zmm_k1z_zmm_zmmm512b32,
    VEX_Vpdpbusd_xmm_xmm_xmmm128,
    EVEX_Vpdpbusd_ymm_k1z_ymm_ymmm256b32,
]);
/// Two products of halves, added.
pub(super) const PAIRS: Codes = vectors([
    VEX_Vpmaddwd_ymm_ymm_ymmm256,
    EVEX_Vpmaddwd_zmm_k1z_zmm_zmmm512,
    VEX_Vpmaddwd_xmm_xmm_xmmm128,
    EVEX_Vpmaddwd_ymm_k1z_ymm_ymmm256,
]);
/// Shifts of halves by a constant.
pub(super) const HALVES_LEFT: Codes = vectors([
    VEX_Vpsllw_ymm_ymm_imm8,
    EVEX_Vpsllw_zmm_k1z_zmmm512_imm8,
    VEX_Vpsllw_xmm_xmm_imm8,
    EVEX_Vpsllw_ymm_k1z_ymmm256_imm8,
]);
pub(super) const HALVES_RIGHT: Codes = vectors([
    VEX_Vpsrlw_ymm_ymm_imm8,
    EVEX_Vpsrlw_zmm_k1z_zmmm512_imm8,
    VEX_Vpsrlw_xmm_xmm_imm8,
    EVEX_Vpsrlw_ymm_k1z_ymmm256_imm8,
]);
pub(super) const HALVES_RIGHT_SIGNED: Codes = vectors([
    VEX_Vpsraw_ymm_ymm_imm8,
    EVEX_Vpsraw_zmm_k1z_zmmm512_imm8,
    VEX_Vpsraw_xmm_xmm_imm8,
    EVEX_Vpsraw_ymm_k1z_ymmm256_imm8,
]);

/// Where one instruction does it.
pub(super) fn unary(op: Unary) -> Option<Codes> {
    Some(vectors(match op {
        Unary::Sqrt => [
            VEX_Vsqrtps_ymm_ymmm256,
            EVEX_Vsqrtps_zmm_k1z_zmmm512b32_er,
            VEX_Vsqrtps_xmm_xmmm128,
            EVEX_Vsqrtps_ymm_k1z_ymmm256b32,
        ],
        Unary::ToI32 => [
            VEX_Vcvttps2dq_ymm_ymmm256,
            EVEX_Vcvttps2dq_zmm_k1z_zmmm512b32_sae,
            VEX_Vcvttps2dq_xmm_xmmm128,
            EVEX_Vcvttps2dq_ymm_k1z_ymmm256b32,
        ],
        Unary::ToF32 => [
            VEX_Vcvtdq2ps_ymm_ymmm256,
            EVEX_Vcvtdq2ps_zmm_k1z_zmmm512b32_er,
            VEX_Vcvtdq2ps_xmm_xmmm128,
            EVEX_Vcvtdq2ps_ymm_k1z_ymmm256b32,
        ],
        // Of integers.
        Unary::Abs => [
            VEX_Vpabsd_ymm_ymmm256,
            EVEX_Vpabsd_zmm_k1z_zmmm512b32,
            VEX_Vpabsd_xmm_xmmm128,
            EVEX_Vpabsd_ymm_k1z_ymmm256b32,
        ],
        Unary::Neg
        | Unary::Not
        | Unary::Round
        | Unary::Floor
        | Unary::Ceil
        | Unary::Trunc
        | Unary::ToF64
        | Unary::ToI64
        | Unary::RoundF16
        | Unary::ToBits
        | Unary::FromBits => return None,
    }))
}

/// How `ROUND` rounds, without an exception for what is inexact.
pub(super) fn rounding(op: Unary) -> Option<u8> {
    match op {
        Unary::Round => Some(8),
        Unary::Floor => Some(9),
        Unary::Ceil => Some(10),
        Unary::Trunc => Some(11),
        Unary::Neg
        | Unary::Abs
        | Unary::Not
        | Unary::Sqrt
        | Unary::ToF32
        | Unary::ToI32
        | Unary::ToF64
        | Unary::ToI64
        | Unary::RoundF16
        | Unary::ToBits
        | Unary::FromBits => None,
    }
}

pub(super) fn binary(op: Binary, ty: Type, width: Width) -> Codes {
    let float = ty.is_float();
    vectors(match op {
        Binary::Add if float => [
            VEX_Vaddps_ymm_ymm_ymmm256,
            EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er,
            VEX_Vaddps_xmm_xmm_xmmm128,
            EVEX_Vaddps_ymm_k1z_ymm_ymmm256b32,
        ],
        Binary::Sub if float => [
            VEX_Vsubps_ymm_ymm_ymmm256,
            EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er,
            VEX_Vsubps_xmm_xmm_xmmm128,
            EVEX_Vsubps_ymm_k1z_ymm_ymmm256b32,
        ],
        Binary::Mul if float => [
            VEX_Vmulps_ymm_ymm_ymmm256,
            EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er,
            VEX_Vmulps_xmm_xmm_xmmm128,
            EVEX_Vmulps_ymm_k1z_ymm_ymmm256b32,
        ],
        Binary::Min if float => [
            VEX_Vminps_ymm_ymm_ymmm256,
            EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae,
            VEX_Vminps_xmm_xmm_xmmm128,
            EVEX_Vminps_ymm_k1z_ymm_ymmm256b32,
        ],
        Binary::Max if float => [
            VEX_Vmaxps_ymm_ymm_ymmm256,
            EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae,
            VEX_Vmaxps_xmm_xmm_xmmm128,
            EVEX_Vmaxps_ymm_k1z_ymm_ymmm256b32,
        ],
        Binary::Add => [
            VEX_Vpaddd_ymm_ymm_ymmm256,
            EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32,
            VEX_Vpaddd_xmm_xmm_xmmm128,
            EVEX_Vpaddd_ymm_k1z_ymm_ymmm256b32,
        ],
        Binary::Sub => return SUB_I32,
        Binary::Mul => [
            VEX_Vpmulld_ymm_ymm_ymmm256,
            EVEX_Vpmulld_zmm_k1z_zmm_zmmm512b32,
            VEX_Vpmulld_xmm_xmm_xmmm128,
            EVEX_Vpmulld_ymm_k1z_ymm_ymmm256b32,
        ],
        Binary::Min => [
            VEX_Vpminsd_ymm_ymm_ymmm256,
            EVEX_Vpminsd_zmm_k1z_zmm_zmmm512b32,
            VEX_Vpminsd_xmm_xmm_xmmm128,
            EVEX_Vpminsd_ymm_k1z_ymm_ymmm256b32,
        ],
        Binary::Max => [
            VEX_Vpmaxsd_ymm_ymm_ymmm256,
            EVEX_Vpmaxsd_zmm_k1z_zmm_zmmm512b32,
            VEX_Vpmaxsd_xmm_xmm_xmmm128,
            EVEX_Vpmaxsd_ymm_k1z_ymm_ymmm256b32,
        ],
        // The verifier lets integers be divided with one lane only.
        Binary::Div | Binary::Rem => [
            VEX_Vdivps_ymm_ymm_ymmm256,
            EVEX_Vdivps_zmm_k1z_zmm_zmmm512b32_er,
            VEX_Vdivps_xmm_xmm_xmmm128,
            EVEX_Vdivps_ymm_k1z_ymm_ymmm256b32,
        ],
        // Masks are in registers of their own.
        Binary::And if ty == Type::Mask && width == Width::Avx512 => {
            return both(VEX_Kandw_kr_kr_kr);
        }
        Binary::Or if ty == Type::Mask && width == Width::Avx512 => return both(VEX_Korw_kr_kr_kr),
        Binary::Xor if ty == Type::Mask && width == Width::Avx512 => {
            return both(VEX_Kxorw_kr_kr_kr);
        }
        Binary::And => return AND,
        Binary::Or => [
            VEX_Vpor_ymm_ymm_ymmm256,
            EVEX_Vpord_zmm_k1z_zmm_zmmm512b32,
            VEX_Vpor_xmm_xmm_xmmm128,
            EVEX_Vpord_ymm_k1z_ymm_ymmm256b32,
        ],
        Binary::Xor => return XOR,
        // With 256 bits it is in an extension of AVX-512, not in AVX2: the verifier has seen to
        // that.
        Binary::Scale => {
            let whole = EVEX_Vscalefps_zmm_k1z_zmm_zmmm512b32_er;
            return only(whole, EVEX_Vscalefps_ymm_k1z_ymm_ymmm256b32);
        }
    })
}

pub(super) fn shift(op: Shift) -> Codes {
    vectors(match op {
        Shift::Left => [
            VEX_Vpslld_ymm_ymm_imm8,
            EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8,
            VEX_Vpslld_xmm_xmm_imm8,
            EVEX_Vpslld_ymm_k1z_ymmm256b32_imm8,
        ],
        Shift::RightSigned => [
            VEX_Vpsrad_ymm_ymm_imm8,
            EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8,
            VEX_Vpsrad_xmm_xmm_imm8,
            EVEX_Vpsrad_ymm_k1z_ymmm256b32_imm8,
        ],
        Shift::RightUnsigned => [
            VEX_Vpsrld_ymm_ymm_imm8,
            EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8,
            VEX_Vpsrld_xmm_xmm_imm8,
            EVEX_Vpsrld_ymm_k1z_ymmm256b32_imm8,
        ],
    })
}

/// Of `COMPARE`, ordered and quiet: false when either is a NaN, without an exception.
pub(super) fn float_predicate(op: Comparison) -> u8 {
    match op {
        Comparison::Equal => 0,
        Comparison::Less => 17,
        Comparison::LessEqual => 18,
    }
}

/// Of `vpcmpd`.
pub(super) fn integer_predicate(op: Comparison) -> u8 {
    match op {
        Comparison::Equal => 0,
        Comparison::Less => 1,
        Comparison::LessEqual => 2,
    }
}

/// The shuffles that exchange halves, quarters and so on.
pub(super) fn exchanges(width: Width) -> &'static [(Code, u8)] {
    match width {
        Width::Avx2 => &[
            (VEX_Vperm2f128_ymm_ymm_ymmm256_imm8, 0x01),
            (VEX_Vshufps_ymm_ymm_ymmm256_imm8, 0x4e),
            (VEX_Vshufps_ymm_ymm_ymmm256_imm8, 0xb1),
        ],
        Width::Avx512 => &[
            (EVEX_Vshuff32x4_zmm_k1z_zmm_zmmm512b32_imm8, 0x4e),
            (EVEX_Vshuff32x4_zmm_k1z_zmm_zmmm512b32_imm8, 0xb1),
            (EVEX_Vshufps_zmm_k1z_zmm_zmmm512b32_imm8, 0x4e),
            (EVEX_Vshufps_zmm_k1z_zmm_zmmm512b32_imm8, 0xb1),
        ],
    }
}
