/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * Rows in which a CPU keeps what it found out last.  They hold for an epoch; what is
 * kept must change with the epoch only.
 *
 * A program may be interrupted by another one on its CPU, in a softirq or by
 * preemption.  So a row has a turn: a writer makes it odd and then even again, and
 * who finds it odd does without the row; a reader whose turn has passed has read
 * nothing.  Between programs of one CPU the order of the code is the order of things.
 */

#ifndef TG_RECENT_H
#define TG_RECENT_H

#include "tg_maps.h"

#define TG_GOLDEN 0x9e3779b1U /* 2^32 by the golden ratio */

#define tg_in_order() __asm__ __volatile__("" : : : "memory")

/* Of that many, a power of two. */
#define tg_row_of(number, many) ((__u32)(number) * TG_GOLDEN / (0xffffffffU / (many) + 1))

static __always_inline __u32 tg_turn(const __u32 *turn)
{
	__u32 now = *(const volatile __u32 *)turn;

	tg_in_order();
	return now;
}

/* Whether what was read since the turn is of one piece. */
static __always_inline _Bool tg_turn_holds(const __u32 *turn, __u32 since)
{
	tg_in_order();
	return !(since & 1) && *(const volatile __u32 *)turn == since;
}

static __always_inline _Bool tg_turn_take(__u32 *turn)
{
	__u32 now = *(volatile __u32 *)turn;

	return !(now & 1) && __sync_val_compare_and_swap(turn, now, now + 1) == now;
}

static __always_inline void tg_turn_give(__u32 *turn)
{
	tg_in_order();
	*(volatile __u32 *)turn += 1;
}

#endif /* TG_RECENT_H */
