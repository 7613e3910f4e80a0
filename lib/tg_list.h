/* SPDX-License-Identifier: BSD-2-Clause */

/* A circular list whose links are members of what it holds; the head is a link
 * too. */

#ifndef TG_LIST_H
#define TG_LIST_H

#include <stddef.h>

typedef struct tg_list_s  tg_list_t;

struct tg_list_s {
    tg_list_t  *prev;
    tg_list_t  *next;
};

/* What a link is a member of. */
#define tg_list_data(link, type, member)                                      \
    ((type *) (void *) ((char *) (link) - offsetof(type, member)))

static inline void
tg_list_init(tg_list_t *head)
{
    head->prev = head;
    head->next = head;
}

static inline int
tg_list_empty(const tg_list_t *head)
{
    return head->next == head;
}

static inline void
tg_list_insert_first(tg_list_t *head, tg_list_t *link)
{
    link->next = head->next;
    link->prev = head;
    head->next->prev = link;
    head->next = link;
}

static inline void
tg_list_remove(tg_list_t *link)
{
    link->next->prev = link->prev;
    link->prev->next = link->next;
}

#endif /* TG_LIST_H */
