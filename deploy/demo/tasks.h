/* tasks.h - queries with judged candidates, made from the catalogue and the baskets.
 *
 *   E1        words of a tag + a person's basket -> the person's own item (3), others with the
 *             tag (1)
 *   E1-cold   the same with no label of a test item in training: see README.md
 *   D1        a basket -> an item taken out of it (1); no query
 *   D1-cold   the same, cold as E1-cold
 *   C         the short description without the product's name -> its item (1)
 *   C-all     the same against the whole catalogue
 *   B1-all    a program's own keywords -> the program (1), against the whole catalogue
 *   B3        one keyword -> the programs that list it (1)
 *   B4        a menu category -> the programs in it (1)
 *
 *   E1-more, E1-cold-more   more of E1 and E1-cold for training, see task_lists.c
 *
 * Rules that keep the numbers honest: candidates are shuffled; negatives are drawn by section or
 * from other people's baskets, never by something that is evaluated (C's lexically hard ones are
 * the exception that its name says: do not compare BM25 with others there); every draw is seeded by
 * what the query is about, never by its place in a file, so that the archive's order means nothing;
 * no query's history or negatives hold an item that it asks for.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_DEPLOY_DEMO_TASKS_H
#define MR_DEPLOY_DEMO_TASKS_H

#include "core/strbuf.h"
#include "deploy/demo/bm25.h"
#include "deploy/demo/items.h"
#include "deploy/demo/people.h"

typedef enum {
    DEMO_E1,
    DEMO_E1_COLD,
    DEMO_D1,
    DEMO_D1_COLD,
    DEMO_C,
    DEMO_C_ALL,
    DEMO_B1_ALL,
    DEMO_B3,
    DEMO_B4,
    DEMO_TASKS, /* of the evaluation; what follows is for training alone */
    DEMO_E1_MORE = DEMO_TASKS,
    DEMO_E1_COLD_MORE,
    DEMO_LISTS_END
} demo_task;
const char *demo_task_name(demo_task task); /* "E1-cold" */

/* Bounds that the full archive needs; a test with forty packages sets smaller ones. */
typedef struct {
    size_t candidates;    /* of one query */
    size_t search_basket; /* E1: people with at least so many items */
    size_t basket;        /* D1 */
    size_t tag_items_min; /* E1: a tag is a query if so many items have it... */
    size_t tag_items_max; /* ...and not more */
    size_t matches_min;   /* E1: other items with the tag that the person does not hold */
    size_t cold_matches_min;
    size_t matches_max;
    size_t near_max;           /* E1: negatives out of the history's sections */
    size_t category_items_min; /* B4 */
    size_t lists_per_person;   /* E1-more and E1-cold-more */
} demo_rules;
extern const demo_rules demo_rules_default;

/* One query, borrowed by whoever it is handed to. */
typedef struct {
    demo_task task;
    demo_fold split;
    mr_str text;                /* may be empty */
    const demo_person *person;  /* NULL: nobody */
    const demo_ids *history;    /* sorted; NULL without a person */
    const demo_ids *candidates; /* shuffled; NULL: the whole catalogue */
    const demo_ids *relevant;   /* the items with a grade; the first has the highest */
    const int *grade;           /* [relevant->n] */
    bool same_family; /* the item asked for and one of the history begin with the same word */
} demo_query;

typedef struct demo_sink demo_sink;
struct demo_sink {
    mr_status (*put)(demo_sink *sink, const demo_query *query, mr_error *err);
};

typedef struct {
    const demo_items *items;
    const demo_people *people;
    demo_bm25 *full;   /* over summary and detail */
    demo_bm25 *detail; /* over detail alone */
    demo_rules rules;
    demo_sink *sink;
    demo_sink *lists; /* takes E1-more and E1-cold-more; NULL: not made */
} demo_task_input;

/* All tasks in order. */
mr_status demo_tasks_make(const demo_task_input *input, mr_error *err);

/* --- shared by the task files ---------------------------------------------------------------- */

/* E1, E1-cold; E1-more, E1-cold-more */
mr_status demo_tasks_search(const demo_task_input *input, mr_error *err);
mr_status demo_tasks_baskets(const demo_task_input *input, mr_error *err); /* D1, D1-cold */
mr_status demo_tasks_items(const demo_task_input *input, mr_error *err);   /* C, C-all */
mr_status demo_tasks_words(const demo_task_input *input, mr_error *err);   /* B1-all, B3, B4 */

/* Which items a query may name. */
typedef enum { DEMO_ANY_ITEM, DEMO_TRAIN_ITEMS, DEMO_TEST_ITEMS } demo_scope;
bool demo_in_scope(const demo_items *items, uint32_t item, demo_scope scope);
/* The scope of a cold task for people of this fold. */
demo_scope demo_cold_scope(demo_fold fold);

mr_rng demo_seed(demo_task task, uint64_t key);
uint64_t demo_text_key(mr_str text);

/* Appends up to n of `from`, in its order, that are not in `taken` (one flag per item), and takes
 * them. */
mr_status demo_take(demo_ids *to, const demo_ids *from, size_t n, uint8_t *taken, mr_error *err);
/* The side of the split that C has an item on: of the train items a tenth is for validation. */
mr_status demo_known_item_split(const demo_item *item, demo_fold *out, mr_error *err);
/* C asks nothing shorter than this; in stems. */
#define DEMO_QUERY_WORDS_MIN 3
/* Appends the words of text, without those that a name gives away: of "lib-foo2" these are "lib",
 * "foo2" and "libfoo2". */
void demo_without_name(mr_strbuf *out, mr_str text, const mr_str *names, size_t n_names);
/* Whether an id's first word is that of one in the list: "mopidy-mpd" and "mopidy-local". */
bool demo_same_family(const demo_items *items, const demo_ids *history, uint32_t item);

#endif
