/* SPDX-License-Identifier: Apache-2.0 */
/* vec_bf16_units.h - f32 to pairs of bf16, half to even; included where AVX-512 BF16 is there */

/* vcvtne2ps2bf16 puts its second operand below its first */
static void bf16_units(uint32_t *u, const void *from, size_t k)
{
	const float *x = from;
	uint16_t *to = (uint16_t *)u;

	for (; k >= 32; k -= 32, x += 32, to += 32) {
		__m512bh v = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));

		memcpy(to, &v, sizeof(v));
	}
	if (k) {
		__mmask32 all = ((__mmask32)1 << k) - 1, most = k % 2 ? all << 1 | 1 : all;
		__m512 lo = _mm512_maskz_loadu_ps((__mmask16)all, x);
		__m512 hi = _mm512_maskz_loadu_ps((__mmask16)(all >> 16), x + 16);

		_mm512_mask_storeu_epi16(to, most, (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
	}
}
