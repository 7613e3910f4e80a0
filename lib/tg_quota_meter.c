/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What a word means: see the head of tg_quota.h.
 */

#include "tg_quota_internal.h"

#define TG_DAY  86400

/* A level above this is a bucket that R has overtaken by a whole round. */
#define TG_LEVEL_MAX  (UINT64_C(1) << 61)

typedef unsigned __int128  tg_u128;


/*
 * The seam for cluster-wide limits: what this gateway may give of the limit.
 * All of it, as long as no gateway shares it.
 */
static uint64_t
tg_quota_granted(const tg_quota_t *quota)
{
    return quota->limit;
}


static int
tg_boosted(const tg_block_t *block, const tg_quota_now_t *now)
{
    return block->boost_milli != 1000 && now->unix_s < block->boost_until;
}


/* value * milli / 1000, at most TG_MAX_LIMIT. */
static uint64_t
tg_scale(uint64_t value, uint32_t milli)
{
    tg_u128  scaled;

    if (milli == 1000) {
        return value;
    }

    scaled = (tg_u128) value * milli / 1000;

    return scaled > TG_MAX_LIMIT ? TG_MAX_LIMIT : (uint64_t) scaled;
}


/* Thousandths of requests in a window. */
static uint64_t
tg_rate(const tg_quota_t *quota, uint32_t milli)
{
    tg_u128  rate;

    rate = (tg_u128) tg_quota_granted(quota) * milli;

    return rate > TG_MAX_LIMIT * 1000 ? TG_MAX_LIMIT * 1000 : (uint64_t) rate;
}


/* Units. */
static uint64_t
tg_capacity(const tg_quota_t *quota, uint32_t milli)
{
    uint64_t  burst;

    burst = tg_scale(quota->burst, milli);

    return (burst > 0 ? burst : 1) * TG_QUOTA_UNIT;
}


/* What a rate gives in us.  At most 2^51 (70 years) * 2^50 * 2^20. */
static tg_u128
tg_growth_whole(const tg_quota_t *quota, uint64_t rate, uint64_t us)
{
    tg_u128  units;

    units = (tg_u128) us * rate * TG_QUOTA_UNIT;

    return units / (quota->seconds * UINT64_C(1000000000));
}


static uint64_t
tg_growth(const tg_quota_t *quota, uint64_t rate, uint64_t us)
{
    return (uint64_t) tg_growth_whole(quota, rate, us);
}


/* us, rounded up, in which a rate gives units. */
static uint64_t
tg_growth_time(const tg_quota_t *quota, uint64_t rate, uint64_t units)
{
    tg_u128  us, unit;

    if (rate == 0) {
        return quota->seconds * UINT64_C(1000000);
    }

    unit = (tg_u128) rate * TG_QUOTA_UNIT;
    us = (tg_u128) units * (quota->seconds * UINT64_C(1000000000));
    us = (us + unit - 1) / unit;

    return us > UINT64_MAX ? UINT64_MAX : (uint64_t) us;
}


/* R(now). */
static uint64_t
tg_given(const tg_block_t *block, const tg_quota_t *quota,
    const tg_quota_now_t *now)
{
    uint64_t  given, since, boosted, plain;

    given = quota->given;
    since = quota->since;

    if (block->boost_milli != 1000 && block->boost_end > since) {

        if (now->mono_us < block->boost_end) {
            return now->mono_us <= since ? given
                   : given + tg_growth(quota, tg_rate(quota, block->boost_milli),
                                       now->mono_us - since);
        }

        given += tg_growth(quota, tg_rate(quota, block->boost_milli),
                           block->boost_end - since);
        since = block->boost_end;

        /* The capacity has shrunk; levels follow. */
        boosted = tg_capacity(quota, block->boost_milli);
        plain = tg_capacity(quota, 1000);

        if (boosted > plain) {
            given += boosted - plain;
        }
    }

    if (now->mono_us > since) {
        given += tg_growth(quota, tg_rate(quota, 1000), now->mono_us - since);
    }

    return given;
}


/* Days since 1970 → months since 1970, the first day of this one and of the next
 * (H. Hinnant, "chrono-compatible low-level date algorithms"). */
static uint64_t
tg_month(uint64_t day, uint64_t *first, uint64_t *next)
{
    uint64_t  era, doe, yoe, year, doy, mp, month, z;

    z = day + 719468;
    era = z / 146097;
    doe = z - era * 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    year = yoe + era * 400;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;
    month = mp < 10 ? mp + 3 : mp - 9;

    if (month <= 2) {
        year++;
    }

    *first = day - (doy - (153 * mp + 2) / 5);
    *next = *first;

    switch (month) {
    case 2:
        *next += (year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)) ? 29
                                                                         : 28;
        break;
    case 4: case 6: case 9: case 11:
        *next += 30;
        break;
    default:
        *next += 31;
    }

    return (year - 1970) * 12 + month - 1;
}


static void
tg_meter_calendar(tg_meter_t *meter, const tg_quota_now_t *now)
{
    uint64_t  period, first, next;

    period = now->unix_s / TG_DAY;
    next = period + 1;

    if (meter->quota->window == TG_WINDOW_MONTH) {
        period = tg_month(period, &first, &next);
    }

    meter->period = period << TG_CALENDAR_BITS;
    meter->left_s = next * TG_DAY - now->unix_s;
}


uint64_t
tg_quota_window(const tg_quota_t *quota, const tg_quota_now_t *now)
{
    uint64_t  first, next;

    switch (quota->window) {
    case TG_WINDOW_DAY:
        return TG_DAY;
    case TG_WINDOW_MONTH:
        (void) tg_month(now->unix_s / TG_DAY, &first, &next);
        return (next - first) * TG_DAY;
    default:
        return quota->seconds;
    }
}


uint64_t
tg_quota_limit(const tg_block_t *block, const tg_quota_t *quota,
    const tg_quota_now_t *now)
{
    if (quota->metric != TG_METRIC_REQUESTS) {
        return quota->limit;
    }

    return tg_scale(tg_quota_granted(quota),
                    tg_boosted(block, now) ? block->boost_milli : 1000);
}


void
tg_meter_init(tg_meter_t *meter, const tg_block_t *block,
    const tg_quota_t *quota, const tg_quota_now_t *now)
{
    uint32_t  milli;

    meter->quota = quota;
    meter->limit = tg_quota_limit(block, quota, now);

    if (quota->metric != TG_METRIC_REQUESTS) {
        return;
    }

    if (quota->window != TG_WINDOW_SECONDS) {
        tg_meter_calendar(meter, now);
        return;
    }

    /* Of one mind with R about the boost, whose end is in this clock. */
    milli = block->boost_milli != 1000 && now->mono_us < block->boost_end
            ? block->boost_milli : 1000;

    meter->rate = tg_rate(quota, milli);
    meter->capacity = tg_capacity(quota, milli);
    meter->given = tg_given(block, quota, now);
}


static uint64_t
tg_meter_level(const tg_meter_t *meter, uint64_t word)
{
    uint64_t  level;

    level = word - meter->given;

    return level > TG_LEVEL_MAX ? 0 : level;
}


/* The count of the present period.  One that is yet to come counts as present:
 * the clock was set back, and nobody gets a second period for that. */
static uint64_t
tg_meter_count(const tg_meter_t *meter, uint64_t word)
{
    return word < meter->period ? 0 : word & TG_CALENDAR_COUNT;
}


int
tg_meter_admit(const tg_meter_t *meter, uint64_t word, uint64_t *after)
{
    uint64_t  level;

    if (meter->quota->metric == TG_METRIC_CONCURRENCY) {
        *after = word + 1;
        return word < meter->limit;
    }

    if (meter->quota->window != TG_WINDOW_SECONDS) {
        *after = word < meter->period ? meter->period + 1 : word + 1;
        return tg_meter_count(meter, word) < meter->limit;
    }

    level = tg_meter_level(meter, word) + TG_QUOTA_UNIT;
    *after = meter->given + level;

    return level <= meter->capacity;
}


uint64_t
tg_meter_undo(const tg_meter_t *meter, uint64_t word)
{
    if (meter->quota->window != TG_WINDOW_SECONDS) {
        return tg_meter_count(meter, word) > 0 ? word - 1 : word;
    }

    /* Below one request: what is to be given back has drained by now. */
    return tg_meter_level(meter, word) >= TG_QUOTA_UNIT ? word - TG_QUOTA_UNIT
                                                        : word;
}


uint64_t
tg_meter_fresh(const tg_meter_t *meter)
{
    if (meter->quota->metric == TG_METRIC_CONCURRENCY) {
        return 0;
    }

    return meter->quota->window != TG_WINDOW_SECONDS ? meter->period
                                                     : meter->given;
}


int
tg_meter_is_idle(const tg_meter_t *meter, uint64_t word)
{
    if (meter->quota->metric == TG_METRIC_CONCURRENCY) {
        return word == 0;
    }

    return meter->quota->window != TG_WINDOW_SECONDS
           ? tg_meter_count(meter, word) == 0
           : tg_meter_level(meter, word) == 0;
}


uint64_t
tg_meter_used(const tg_meter_t *meter, uint64_t word)
{
    if (meter->quota->metric == TG_METRIC_CONCURRENCY) {
        return word;
    }

    return meter->quota->window != TG_WINDOW_SECONDS
           ? tg_meter_count(meter, word)
           : (tg_meter_level(meter, word) + TG_QUOTA_UNIT - 1) / TG_QUOTA_UNIT;
}


uint64_t
tg_meter_remaining(const tg_meter_t *meter, uint64_t word)
{
    uint64_t  used, all;

    if (meter->quota->metric == TG_METRIC_REQUESTS
        && meter->quota->window == TG_WINDOW_SECONDS)
    {
        used = tg_meter_level(meter, word);
        return used >= meter->capacity
               ? 0 : (meter->capacity - used) / TG_QUOTA_UNIT;
    }

    used = tg_meter_used(meter, word);
    all = meter->limit;

    return used >= all ? 0 : all - used;
}


static uint64_t
tg_seconds(uint64_t us)
{
    return us / 1000000 + (us % 1000000 != 0);
}


uint64_t
tg_meter_reset(const tg_meter_t *meter, uint64_t word)
{
    if (meter->quota->metric == TG_METRIC_CONCURRENCY) {
        return 0;
    }

    if (meter->quota->window != TG_WINDOW_SECONDS) {
        return meter->left_s;
    }

    return tg_seconds(tg_growth_time(meter->quota, meter->rate,
                                     tg_meter_level(meter, word)));
}


uint64_t
tg_meter_retry(const tg_meter_t *meter, uint64_t word)
{
    uint64_t  level, seconds;

    if (meter->quota->metric == TG_METRIC_CONCURRENCY) {
        return 1;
    }

    if (meter->quota->window != TG_WINDOW_SECONDS) {
        return meter->left_s;
    }

    level = tg_meter_level(meter, word) + TG_QUOTA_UNIT;

    if (level <= meter->capacity) {
        return 1;
    }

    seconds = tg_seconds(tg_growth_time(meter->quota, meter->rate,
                                        level - meter->capacity));

    return seconds > 0 ? seconds : 1;
}


uint64_t
tg_meter_units(const tg_meter_t *meter, uint64_t word)
{
    return tg_meter_level(meter, word);
}


/* When the block's boost ends, if it has one: us, CLOCK_REALTIME. */
static uint64_t
tg_boost_until(const tg_block_t *block)
{
    if (block->boost_milli == 1000) {
        return 0;
    }

    return block->boost_until < UINT64_MAX / 1000000
           ? block->boost_until * 1000000 : UINT64_MAX;
}


uint64_t
tg_meter_drained(const tg_block_t *block, const tg_quota_t *quota,
    uint64_t from_us, uint64_t to_us)
{
    tg_u128   units;
    uint64_t  end, boosted, plain;

    units = 0;
    end = tg_boost_until(block);

    if (from_us < end && from_us < to_us) {
        units = tg_growth_whole(quota, tg_rate(quota, block->boost_milli),
                                (to_us < end ? to_us : end) - from_us);

        /* at its end, as in tg_given() */
        boosted = tg_capacity(quota, block->boost_milli);
        plain = tg_capacity(quota, 1000);

        if (end <= to_us && boosted > plain) {
            units += boosted - plain;
        }

        from_us = end;
    }

    if (from_us < to_us) {
        units += tg_growth_whole(quota, tg_rate(quota, 1000), to_us - from_us);
    }

    return units > UINT64_MAX ? UINT64_MAX : (uint64_t) units;
}


static int
tg_meter_add_calendar(const tg_meter_t *meter, uint64_t word, uint64_t more,
    uint64_t *after)
{
    uint64_t  period, own, count;

    period = more & ~TG_CALENDAR_COUNT;
    own = word < meter->period ? meter->period : word & ~TG_CALENDAR_COUNT;
    count = more & TG_CALENDAR_COUNT;

    if (period == own) {
        count += tg_meter_count(meter, word);

    } else if (own != meter->period
               || period != own + (UINT64_C(1) << TG_CALENDAR_BITS))
    {
        return 0;
    }

    /* else a clock that is ahead of this one has begun the next period */

    *after = period | (count > TG_CALENDAR_COUNT ? TG_CALENDAR_COUNT : count);

    return count > TG_CALENDAR_COUNT ? 2 : 1;
}


int
tg_meter_add(const tg_meter_t *meter, uint64_t word, uint64_t more,
    uint64_t *after)
{
    uint64_t  level;

    if (meter->quota->window != TG_WINDOW_SECONDS) {
        return tg_meter_add_calendar(meter, word, more, after);
    }

    level = tg_meter_level(meter, word);

    if (level <= meter->capacity && more <= meter->capacity - level) {
        *after = meter->given + level + more;
        return 1;
    }

    *after = meter->given + (level > meter->capacity ? level : meter->capacity);

    return 2;
}


uint64_t
tg_meter_take(const tg_meter_t *meter, uint64_t word, uint64_t less)
{
    uint64_t  count, level;

    if (meter->quota->window == TG_WINDOW_SECONDS) {
        level = tg_meter_level(meter, word);
        return meter->given + (level > less ? level - less : 0);
    }

    if ((word ^ less) >> TG_CALENDAR_BITS != 0) {
        return word;
    }

    count = less & TG_CALENDAR_COUNT;

    return word - (count < (word & TG_CALENDAR_COUNT)
                   ? count : word & TG_CALENDAR_COUNT);
}


uint64_t
tg_meter_clamp(const tg_meter_t *meter, uint64_t word)
{
    return tg_meter_level(meter, word) > meter->capacity
           ? meter->given + meter->capacity : word;
}
