/* people.h - pseudonymous people and their baskets: which items somebody chose to care for.
 *
 * PERSONAL DATA. The source index names each package's maintainer and uploaders. This module is the
 * only one that sees a name. A name becomes a SHA-256 in memory, which serves to tell people apart
 * and to choose their fold; both are wiped before the module returns. What comes out is a basket, a
 * fold and a number that follows from the baskets alone. No name, address or hash of one is
 * returned, written, logged or quoted in an error message. A basket can still be traced by somebody
 * who has the public index, as README.md says: baskets are built locally and not shipped.
 *
 * Teams and mailing lists are left out. A basket is a set: its order means nothing.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_PEOPLE_H
#define MR_DEPLOY_DEMO_PEOPLE_H

#include "deploy/demo/items.h"
#include "deploy/demo/names.h"

#define DEMO_PERSON_ID 24

typedef struct {
    char id[DEMO_PERSON_ID]; /* "u000001", in order of `key` */
    demo_ids basket;         /* item indexes, sorted; at least two */
    uint64_t key;            /* XXH3 of the basket's ids: seeds, and the order of the numbers */
    demo_fold fold;          /* 50 % train, 10 % valid, 40 % test */
} demo_person;

typedef struct {
    demo_person *person; /* owned */
    size_t n;
} demo_people;

mr_status demo_people_read(demo_people *out, mr_str sources, const demo_items *items,
                           mr_error *err);
void demo_people_done(demo_people *people);

#endif
