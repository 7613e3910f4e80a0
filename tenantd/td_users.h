/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A user of its own for each instance: a number from a range, which is also its
 * group and needs no entry in passwd(5).  It is written down as the group of the
 * instance's prefix, and free again when that is gone.
 */

#ifndef TD_USERS_H
#define TD_USERS_H

#include <sys/types.h>

#include "td_config.h"
#include "tg_error.h"

/*
 * The user of a prefix below directory.  make: if there is no such prefix it is
 * made, with a user that no other has.  Returns 0; 1: the prefix is there, but
 * its group is not of the range; or -1 with err.  *uid is set with 0 only.
 */
int td_users_take(const char *directory, const char *path,
    const td_range_t *range, int make, uid_t *uid, tg_error_t *err);

#endif /* TD_USERS_H */
