/* task_words.c - B1, B3, B4: what programs say of themselves in their menu entries.
 *
 * Short human words as queries: a program's own keywords (B1), one keyword that several list (B3),
 * a menu category (B4). Half of the programs that list a keyword do not have the word in their
 * text, so lexical search alone does not do. All of these are for evaluation: their split is
 * "test", whatever fold their items are in.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "deploy/demo/tasks.h"

#define KEYWORD_ITEMS_MIN  3
#define KEYWORD_ITEMS_MAX  80
#define CATEGORY_ITEMS_MAX 450
#define POSITIVES_MAX      10
#define NEAR_MAX           45

/* Keywords that name a toolkit or nothing in particular; stems. */
static const char *const generic_keywords[] = {
    "qt",   "gtk",     "gnome",       "kde",  "xfce",     "linux",   "mate",
    "lxqt", "debian",  "open source", "free", "software", "ubuntu",  "application",
    "app",  "program", "tool",        "util", "user",     "utility", "color",
};
static const char *const generic_categories[] = {
    "Qt",       "GTK",  "GNOME", "KDE",     "Application", "Core", "ConsoleOnly",
    "XFCE",     "MATE", "Java",  "Utility", "Motif",       "LXQt", "LXDE",
    "Cinnamon", "TDE",  "EDE",   "Unity",   "Budgie",
};

/* A keyword or a category with the items that list it. */
typedef struct {
    mr_str label;   /* how it is shown: the commonest spelling */
    demo_ids items; /* sorted */
    demo_ids spelling;
} topic;

typedef struct {
    const demo_task_input *in;
    mr_arena arena;
    demo_names topics;    /* stem or category -> number */
    demo_names spellings; /* as written, lower case */
    topic *topic;
    size_t capacity;
    demo_ids pool; /* items that list anything */
    uint8_t *taken;
    demo_ids candidates, scratch;
    mr_strbuf words;
} words;

static bool in_list(mr_str text, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (mr_str_equal(text, mr_str_of(list[i])))
            return true;
    return false;
}

static bool begins(mr_str text, const char *with)
{
    size_t len = strlen(with);
    return text.len >= len && memcmp(text.data, with, len) == 0;
}

static mr_status add(words *w, mr_str key, mr_str spelling, uint32_t item, mr_error *err)
{
    uint32_t number, written;
    mr_status status = demo_names_add_copy(&w->topics, &w->arena, key, &number, err);
    if (status == MR_OK)
        status = demo_names_add_copy(&w->spellings, &w->arena, spelling, &written, err);
    if (status != MR_OK)
        return status;
    if (number >= w->capacity) {
        size_t capacity = w->capacity ? w->capacity * 2 : 256;
        topic *grown = realloc(w->topic, capacity * sizeof *grown);
        if (!grown)
            return MR_FAIL(err, NO_MEMORY, "a table of %zu keywords", capacity);
        memset(grown + w->capacity, 0, (capacity - w->capacity) * sizeof *grown);
        w->topic = grown;
        w->capacity = capacity;
    }
    status = demo_ids_push(&w->topic[number].items, item, err);
    if (status == MR_OK)
        status = demo_ids_push(&w->topic[number].spelling, written, err);
    return status;
}

/* "Image Viewers" and "image viewer" are one keyword. */
static void stems(mr_strbuf *out, mr_str text)
{
    char word[MR_WORD_MAX];
    size_t len;
    mr_strbuf_clear(out);
    while (mr_words_next(&text, word, &len)) {
        if (out->len)
            mr_strbuf_append(out, " ", 1);
        mr_strbuf_append(out, word, len);
    }
}

static mr_status add_keyword(words *w, mr_str keyword, uint32_t item, mr_error *err)
{
    char lower[128];
    keyword = demo_trim(keyword);
    stems(&w->words, keyword);
    if (w->words.failed)
        return MR_FAIL(err, NO_MEMORY, "a keyword");
    if (!w->words.len || keyword.len > sizeof lower)
        return MR_OK;
    for (size_t i = 0; i < keyword.len; i++) {
        char c = keyword.data[i];
        lower[i] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c < ' ' && c >= 0 ? ' ' : c);
    }
    return add(w, (mr_str){w->words.data, w->words.len}, (mr_str){lower, keyword.len}, item, err);
}

/* "BoardGame" is asked for as "Board Game". */
static mr_status add_category(words *w, mr_str category, uint32_t item, mr_error *err)
{
    mr_strbuf_clear(&w->words);
    for (size_t i = 0; i < category.len; i++) {
        char c = category.data[i];
        if (i && c >= 'A' && c <= 'Z' && category.data[i - 1] >= 'a' && category.data[i - 1] <= 'z')
            mr_strbuf_append(&w->words, " ", 1);
        mr_strbuf_append(&w->words, &c, 1);
    }
    if (w->words.failed)
        return MR_FAIL(err, NO_MEMORY, "a category");
    if (!w->words.len)
        return MR_OK;
    return add(w, category, (mr_str){w->words.data, w->words.len}, item, err);
}

static mr_status collect(words *w, bool categories, mr_error *err)
{
    const demo_items *items = w->in->items;
    for (size_t i = 0; i < items->components->n; i++) {
        uint32_t item = items->item_of_component[i];
        if (item == DEMO_NONE)
            continue;
        const demo_component *component = &items->components->component[i];
        const demo_texts *texts = categories ? &component->categories : &component->keywords;
        mr_status status = MR_OK;
        if (texts->n >= (categories ? 1u : 2u))
            status = demo_ids_push(&w->pool, item, err);
        for (size_t k = 0; k < texts->n && status == MR_OK; k++)
            status = categories ? add_category(w, texts->text[k], item, err)
                                : add_keyword(w, texts->text[k], item, err);
        if (status != MR_OK)
            return status;
    }
    demo_ids_sort(&w->pool);
    return MR_OK;
}

/* The spelling that most list, of equals the first in the alphabet. */
static mr_str commonest(const words *w, const topic *of)
{
    mr_str best = {"", 0};
    size_t best_count = 0;
    for (size_t i = 0; i < of->spelling.n; i++) {
        size_t count = 0;
        for (size_t k = 0; k < of->spelling.n; k++)
            count += of->spelling.id[k] == of->spelling.id[i];
        mr_str text = w->spellings.name[of->spelling.id[i]];
        if (count > best_count || (count == best_count && demo_str_compare(text, best) < 0)) {
            best = text;
            best_count = count;
        }
    }
    return best;
}

static mr_status take_negatives(words *w, const demo_ids *positives, const demo_ids *sections,
                                size_t n, mr_rng *rng, mr_error *err)
{
    const demo_items *items = w->in->items;
    w->scratch.n = 0;
    for (size_t i = 0; i < w->pool.n; i++) {
        uint32_t item = w->pool.id[i];
        if (w->taken[item] || demo_ids_hold(positives, item) ||
            (sections && !demo_ids_hold(sections, items->item[item].section)))
            continue;
        mr_status status = demo_ids_push(&w->scratch, item, err);
        if (status != MR_OK)
            return status;
    }
    demo_ids_shuffle(&w->scratch, rng);
    return demo_take(&w->candidates, &w->scratch, n, w->taken, err);
}

static mr_status ask_topic(words *w, demo_task task, const topic *of, mr_str key, mr_error *err)
{
    mr_rng rng = demo_seed(task, demo_text_key(key));
    int grade[POSITIVES_MAX];
    demo_ids picked = {0}, sections = {0};
    w->candidates.n = w->scratch.n = 0;

    mr_status status = MR_OK;
    for (size_t i = 0; i < of->items.n && status == MR_OK; i++)
        status = demo_ids_push(&w->scratch, of->items.id[i], err);
    demo_ids_shuffle(&w->scratch, &rng);
    for (size_t i = 0; i < w->scratch.n && i < POSITIVES_MAX && status == MR_OK; i++) {
        grade[i] = 1;
        status = demo_ids_push(&picked, w->scratch.id[i], err);
        if (status == MR_OK)
            status = demo_ids_push(&sections, w->in->items->item[w->scratch.id[i]].section, err);
    }
    demo_ids_sort(&sections);
    if (status == MR_OK)
        status = demo_take(&w->candidates, &picked, picked.n, w->taken, err);
    if (status == MR_OK)
        status = take_negatives(w, &of->items, &sections, NEAR_MAX, &rng, err);
    if (status == MR_OK && w->candidates.n < w->in->rules.candidates)
        status = take_negatives(w, &of->items, NULL, w->in->rules.candidates - w->candidates.n,
                                &rng, err);
    for (size_t i = 0; i < w->candidates.n; i++)
        w->taken[w->candidates.id[i]] = 0;
    if (status == MR_OK && w->candidates.n > picked.n) {
        demo_ids_shuffle(&w->candidates, &rng);
        demo_query query = {
            .task = task,
            .split = DEMO_TEST,
            .text = commonest(w, of),
            .candidates = &w->candidates,
            .relevant = &picked,
            .grade = grade,
        };
        status = w->in->sink->put(w->in->sink, &query, err);
    }
    demo_ids_done(&picked);
    demo_ids_done(&sections);
    return status;
}

static bool is_asked_for(const words *w, demo_task task, mr_str key, size_t n)
{
    if (task == DEMO_B3)
        return n >= KEYWORD_ITEMS_MIN && n <= KEYWORD_ITEMS_MAX &&
               !in_list(key, generic_keywords, sizeof generic_keywords / sizeof *generic_keywords);
    return n >= w->in->rules.category_items_min && n <= CATEGORY_ITEMS_MAX && !begins(key, "X-") &&
           !begins(key, "GNOME") && !begins(key, "KDE") &&
           !in_list(key, generic_categories,
                    sizeof generic_categories / sizeof *generic_categories);
}

static void words_done(words *w)
{
    for (size_t i = 0; i < w->topics.n && i < w->capacity; i++) {
        demo_ids_done(&w->topic[i].items);
        demo_ids_done(&w->topic[i].spelling);
    }
    free(w->topic);
    free(w->taken);
    demo_names_done(&w->topics);
    demo_names_done(&w->spellings);
    demo_ids_done(&w->pool);
    demo_ids_done(&w->candidates);
    demo_ids_done(&w->scratch);
    mr_strbuf_release(&w->words);
    mr_arena_done(&w->arena);
}

static mr_status make_topics(const demo_task_input *input, demo_task task, mr_error *err)
{
    words w = {.in = input};
    mr_status status = MR_OK;
    w.taken = calloc(input->items->n + 1, 1);
    if (!w.taken) {
        status = MR_FAIL(err, NO_MEMORY, "a table of %zu items", input->items->n);
        goto out;
    }
    status = collect(&w, task == DEMO_B4, err);
    for (size_t i = 0; i < w.topics.n && status == MR_OK; i++) {
        demo_ids_sort(&w.topic[i].items);
        if (is_asked_for(&w, task, w.topics.name[i], w.topic[i].items.n))
            status = ask_topic(&w, task, &w.topic[i], w.topics.name[i], err);
    }

out:
    words_done(&w);
    return status;
}

/* A program's keywords together, without its name. */
static mr_status make_keyword_queries(const demo_task_input *input, mr_error *err)
{
    const demo_items *items = input->items;
    mr_strbuf text = {0};
    mr_status status = MR_OK;
    for (size_t i = 0; i < items->n && status == MR_OK; i++) {
        const demo_item *item = &items->item[i];
        if (item->first_component == DEMO_NONE)
            continue;
        const demo_component *component = &items->components->component[item->first_component];
        if (component->keywords.n < 2)
            continue;
        const mr_str names[] = {item->id, item->source, component->name};
        mr_strbuf_clear(&text);
        for (size_t k = 0; k < component->keywords.n; k++)
            demo_without_name(&text, component->keywords.text[k], names, 3);
        mr_str words_of = {text.data ? text.data : "", text.len};
        if (text.failed) {
            status = MR_FAIL(err, NO_MEMORY, "the words of a query");
        } else if (demo_stem_count(words_of) >= 2) {
            static const int grade[] = {1};
            uint32_t own = (uint32_t)i;
            demo_ids relevant = {.id = &own, .n = 1};
            demo_query query = {
                .task = DEMO_B1_ALL,
                .split = DEMO_TEST,
                .text = words_of,
                .relevant = &relevant,
                .grade = grade,
            };
            status = input->sink->put(input->sink, &query, err);
        }
    }
    mr_strbuf_release(&text);
    return status;
}

mr_status demo_tasks_words(const demo_task_input *input, mr_error *err)
{
    mr_status status = make_keyword_queries(input, err);
    if (status == MR_OK)
        status = make_topics(input, DEMO_B3, err);
    if (status == MR_OK)
        status = make_topics(input, DEMO_B4, err);
    return status;
}
