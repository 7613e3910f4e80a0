/* SPDX-License-Identifier: BSD-2-Clause */

#ifndef TD_REPLACE_H
#define TD_REPLACE_H

/* Gives the file that fd has open, and that is called from, the name to, in the same
 * directory.  Whatever happens to the machine, to is then the old file or all of the
 * new one, and is the new one for good once 0 is returned.  -1 with errno: to may be
 * either. */
int td_replace(int fd, const char *from, const char *to);

#endif /* TD_REPLACE_H */
