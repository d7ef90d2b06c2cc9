/* The kernel in encoder_kernel.c for processors that multiply bfloat16, or at least round to it in one instruction. */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("arch=x86-64-v4,avx512bf16")
#define VARIANT(name) name##_bf16
#include "encoder_kernel.c"
#endif
