/* texts.c - texts.jsonl and pairs.jsonl, out of the descriptions of the whole archive.
 *
 * A third of all description text is paragraphs that sibling packages share. A text stays with the
 * catalogue's item that has it, else with the first package in order of name; rows are in order of
 * package name, so that neither says anything of the order of the index.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core/strbuf.h"
#include "deploy/demo/rows.h"
#include "deploy/demo/training.h"

#define TEXT_BYTES ((size_t)1 << 29) /* of the texts that are compared */

bool demo_has_address(mr_str text)
{
    for (size_t i = 1; i + 1 < text.len; i++) {
        if (text.data[i] != '@' || strchr(" \t\n<(\"'", text.data[i - 1]))
            continue;
        bool dot = false;
        for (size_t k = i + 1; k < text.len; k++) {
            char c = text.data[k];
            bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
            if (dot && letter)
                return true;
            dot = c == '.' && k > i + 1;
            if (!dot && !letter && !(c >= '0' && c <= '9') && c != '-')
                break;
        }
    }
    return false;
}

/* Packages in order of name, and in the order in which they lay claim to a text. */
typedef struct {
    const demo_archive *archive;
    demo_ids by_name, by_claim;
} sequence;

static int compare_names(const void *a, const void *b)
{
    const demo_package *const *x = a;
    const demo_package *const *y = b;
    return demo_str_compare((*x)->name, (*y)->name);
}

static mr_status sequence_make(sequence *out, const demo_archive *archive, const demo_items *items,
                               mr_error *err)
{
    *out = (sequence){.archive = archive};
    const demo_package **sorted = calloc(archive->n + 1, sizeof *sorted);
    if (!sorted)
        return MR_FAIL(err, NO_MEMORY, "a table of %zu packages", archive->n);
    for (size_t i = 0; i < archive->n; i++)
        sorted[i] = &archive->package[i];
    qsort(sorted, archive->n, sizeof *sorted, compare_names);
    mr_status status = MR_OK;
    for (size_t i = 0; i < archive->n && status == MR_OK; i++)
        status = demo_ids_push(&out->by_name, (uint32_t)(sorted[i] - archive->package), err);
    for (int item = 1; item >= 0; item--) {
        for (size_t i = 0; i < out->by_name.n && status == MR_OK; i++) {
            uint32_t package = out->by_name.id[i];
            bool is_item =
                demo_names_find(&items->ids, archive->package[package].name) != DEMO_NONE;
            if (is_item == (item == 1))
                status = demo_ids_push(&out->by_claim, package, err);
        }
    }
    free(sorted);
    return status;
}

static void sequence_done(sequence *packages)
{
    demo_ids_done(&packages->by_name);
    demo_ids_done(&packages->by_claim);
}

static mr_status check(const mr_strbuf *buf, mr_error *err)
{
    return buf->failed ? MR_FAIL(err, NO_MEMORY, "the text of a package") : MR_OK;
}

static mr_str str_of(const mr_strbuf *buf)
{
    return (mr_str){buf->data ? buf->data : "", buf->len};
}

/* --- texts.jsonl ----------------------------------------------------------------------------- */

typedef struct {
    mr_arena arena;
    demo_names units; /* text -> number */
    demo_ids owner;   /* by that number; DEMO_NONE once written */
    mr_strbuf text;
} units;

static void append_words(mr_strbuf *out, mr_str text, size_t *n)
{
    mr_str word;
    while (*n < DEMO_DETAIL_WORDS && demo_words_next(&text, &word)) {
        if ((*n)++)
            mr_strbuf_append(out, " ", 1);
        demo_append_clean(out, word);
    }
}

/* The next paragraph off the front of a long description; how many words it has, 0 at the end. */
static size_t paragraph_next(mr_str *lines, mr_strbuf *out)
{
    mr_str line;
    size_t n = 0;
    mr_strbuf_clear(out);
    while (demo_lines_next(lines, &line)) {
        bool blank = mr_str_equal(demo_trim(line), mr_str_of("."));
        if (blank && n)
            return n;
        if (!blank)
            append_words(out, line, &n);
    }
    return n;
}

static mr_status claim(units *u, demo_text_counts *counts, uint32_t package, mr_error *err)
{
    uint32_t number;
    mr_status status = check(&u->text, err);
    if (status != MR_OK || !u->text.len)
        return status;
    if (demo_has_address(str_of(&u->text))) {
        counts->addressed++;
        return MR_OK;
    }
    status = demo_names_add_copy(&u->units, &u->arena, str_of(&u->text), &number, err);
    if (status == MR_OK && number < u->owner.n)
        counts->repeated++;
    else if (status == MR_OK)
        status = demo_ids_push(&u->owner, package, err);
    return status;
}

static mr_status write_unit(units *u, demo_text_counts *counts, FILE *stream,
                            const demo_package *package, uint32_t index, mr_error *err)
{
    mr_status status = check(&u->text, err);
    uint32_t number = status == MR_OK ? demo_names_find(&u->units, str_of(&u->text)) : DEMO_NONE;
    if (number == DEMO_NONE || u->owner.id[number] != index)
        return status;
    u->owner.id[number] = DEMO_NONE;
    counts->rows++;
    bool failed = false;
    json_t *row = json_object();
    demo_row_text(row, "id", package->name, &failed);
    demo_row_text(row, "text", str_of(&u->text), &failed);
    return demo_row_write(stream, row, failed, demo_training_files[0], err);
}

/* stream NULL: claims the package's texts; else writes those that it was given. */
static mr_status each_unit(units *u, demo_training *training, const demo_archive *archive,
                           uint32_t index, FILE *stream, mr_error *err)
{
    const demo_package *package = &archive->package[index];
    mr_str lines = package->detail;
    size_t n = 0;
    mr_strbuf_clear(&u->text);
    append_words(&u->text, package->summary, &n);
    mr_status status;
    do {
        status = stream ? write_unit(u, &training->texts, stream, package, index, err)
                        : claim(u, &training->texts, index, err);
    } while (status == MR_OK && paragraph_next(&lines, &u->text) > 0);
    return status;
}

mr_status demo_training_texts(demo_training *training, const demo_archive *archive, mr_error *err)
{
    units u = {.arena = {.limit = TEXT_BYTES}};
    sequence packages;
    mr_file_writer writer = {0};
    mr_status status = sequence_make(&packages, archive, training->items, err);
    if (status == MR_OK)
        status = demo_writer_open(&writer, training->folder, demo_training_files[0], err);
    for (size_t i = 0; i < packages.by_claim.n && status == MR_OK; i++)
        status = each_unit(&u, training, archive, packages.by_claim.id[i], NULL, err);
    for (size_t i = 0; i < packages.by_name.n && status == MR_OK; i++)
        status = each_unit(&u, training, archive, packages.by_name.id[i], writer.stream, err);
    if (status == MR_OK)
        status = mr_file_writer_commit(&writer, err);
    else
        mr_file_writer_abandon(&writer);
    sequence_done(&packages);
    demo_names_done(&u.units);
    demo_ids_done(&u.owner);
    mr_strbuf_release(&u.text);
    mr_arena_done(&u.arena);
    return status;
}

/* --- pairs.jsonl ----------------------------------------------------------------------------- */

#define TELLING_WORDS 12 /* of a paragraph; shorter ones are phrases that many share */

typedef struct {
    mr_arena arena;
    demo_names a, b;       /* texts of rows */
    demo_names held_a;     /* C's queries for held-out items */
    demo_names held_b;     /* long texts of the packages of held-out items' sources */
    demo_names paragraphs; /* telling ones of held-out items */
    mr_strbuf summary, query, detail, paragraph;
    uint8_t *kept; /* per package */
} pairs;

/* TEST, VALID: C's label for the item of this package's source is not for training. */
static mr_status side_of(const demo_items *items, const demo_package *package, demo_fold *out,
                         mr_error *err)
{
    uint32_t source = demo_names_find(&items->sources, package->source);
    *out = DEMO_TRAIN;
    return source == DEMO_NONE
               ? MR_OK
               : demo_known_item_split(&items->item[items->item_of_source[source]], out, err);
}

static mr_status read_pair(pairs *p, const demo_package *package, mr_error *err)
{
    const mr_str names[] = {package->name, package->source};
    mr_strbuf_clear(&p->summary);
    mr_strbuf_clear(&p->query);
    mr_strbuf_clear(&p->detail);
    demo_append_clean(&p->summary, package->summary);
    demo_without_name(&p->query, str_of(&p->summary), names, 2);
    demo_append_detail(&p->detail, package->detail);
    if (p->summary.failed || p->query.failed)
        return MR_FAIL(err, NO_MEMORY, "the text of a package");
    return check(&p->detail, err);
}

static mr_status hold_out_item(pairs *p, const demo_package *package, mr_error *err)
{
    uint32_t number;
    mr_str lines = package->detail;
    mr_status status = demo_names_add_copy(&p->held_a, &p->arena, str_of(&p->query), &number, err);
    for (size_t n; status == MR_OK && (n = paragraph_next(&lines, &p->paragraph)) > 0;) {
        status = check(&p->paragraph, err);
        if (status == MR_OK && n >= TELLING_WORDS)
            status =
                demo_names_add_copy(&p->paragraphs, &p->arena, str_of(&p->paragraph), &number, err);
    }
    return status;
}

static mr_status hold_out(pairs *p, demo_training *training, const demo_package *package,
                          mr_error *err)
{
    demo_fold side;
    uint32_t number;
    mr_status status = side_of(training->items, package, &side, err);
    if (status != MR_OK || side == DEMO_TRAIN)
        return status;
    *(side == DEMO_TEST ? &training->pairs.of_test_items : &training->pairs.of_valid_items) += 1;
    status = read_pair(p, package, err);
    if (status == MR_OK && p->detail.len)
        status = demo_names_add_copy(&p->held_b, &p->arena, str_of(&p->detail), &number, err);
    if (status == MR_OK && demo_names_find(&training->items->ids, package->name) != DEMO_NONE)
        status = hold_out_item(p, package, err);
    return status;
}

static mr_status is_like_held_out(pairs *p, const demo_package *package, bool *out, mr_error *err)
{
    *out = demo_names_find(&p->held_a, str_of(&p->query)) != DEMO_NONE ||
           demo_names_find(&p->held_b, str_of(&p->detail)) != DEMO_NONE;
    mr_status status = MR_OK;
    mr_str lines = package->detail;
    while (status == MR_OK && !*out && paragraph_next(&lines, &p->paragraph) > 0) {
        status = check(&p->paragraph, err);
        *out = demo_names_find(&p->paragraphs, str_of(&p->paragraph)) != DEMO_NONE;
    }
    return status;
}

static mr_status choose(pairs *p, demo_training *training, const demo_archive *archive,
                        uint32_t index, mr_error *err)
{
    const demo_package *package = &archive->package[index];
    demo_pair_counts *counts = &training->pairs;
    demo_fold side;
    mr_status status = side_of(training->items, package, &side, err);
    if (status == MR_OK && side == DEMO_TRAIN)
        status = read_pair(p, package, err);
    if (status != MR_OK || side != DEMO_TRAIN)
        return status;

    bool like_held_out;
    uint32_t number;
    if (demo_stem_count(str_of(&p->query)) < DEMO_QUERY_WORDS_MIN || !p->detail.len) {
        counts->short_query++;
        return MR_OK;
    }
    if (demo_has_address(str_of(&p->summary)) || demo_has_address(str_of(&p->detail))) {
        counts->addressed++;
        return MR_OK;
    }
    status = is_like_held_out(p, package, &like_held_out, err);
    if (status == MR_OK && like_held_out) {
        counts->like_held_out++;
        return MR_OK;
    }
    if (demo_names_find(&p->a, str_of(&p->query)) != DEMO_NONE ||
        demo_names_find(&p->b, str_of(&p->detail)) != DEMO_NONE) {
        counts->repeated++;
        return status;
    }
    p->kept[index] = 1;
    counts->rows++;
    if (status == MR_OK)
        status = demo_names_add_copy(&p->a, &p->arena, str_of(&p->query), &number, err);
    if (status == MR_OK)
        status = demo_names_add_copy(&p->b, &p->arena, str_of(&p->detail), &number, err);
    return status;
}

static mr_status write_pair(pairs *p, FILE *stream, const demo_package *package, mr_error *err)
{
    mr_status status = read_pair(p, package, err);
    if (status != MR_OK)
        return status;
    bool failed = false;
    json_t *row = json_object();
    demo_row_text(row, "id", package->name, &failed);
    demo_row_text(row, "section", package->section, &failed);
    demo_row_text(row, "a", str_of(&p->query), &failed);
    demo_row_text(row, "b", str_of(&p->detail), &failed);
    demo_row_text(row, "group", package->source, &failed);
    return demo_row_write(stream, row, failed, demo_training_files[1], err);
}

mr_status demo_training_pairs(demo_training *training, const demo_archive *archive, mr_error *err)
{
    pairs p = {.arena = {.limit = TEXT_BYTES}};
    sequence packages;
    mr_file_writer writer = {0};
    mr_status status = sequence_make(&packages, archive, training->items, err);
    p.kept = calloc(archive->n + 1, 1);
    if (status == MR_OK && !p.kept)
        status = MR_FAIL(err, NO_MEMORY, "a table of %zu packages", archive->n);
    if (status == MR_OK)
        status = demo_writer_open(&writer, training->folder, demo_training_files[1], err);
    for (size_t i = 0; i < archive->n && status == MR_OK; i++)
        status = hold_out(&p, training, &archive->package[i], err);
    for (size_t i = 0; i < packages.by_claim.n && status == MR_OK; i++)
        status = choose(&p, training, archive, packages.by_claim.id[i], err);
    for (size_t i = 0; i < packages.by_name.n && status == MR_OK; i++)
        if (p.kept[packages.by_name.id[i]])
            status = write_pair(&p, writer.stream, &archive->package[packages.by_name.id[i]], err);
    if (status == MR_OK)
        status = mr_file_writer_commit(&writer, err);
    else
        mr_file_writer_abandon(&writer);
    sequence_done(&packages);
    demo_names_done(&p.a);
    demo_names_done(&p.b);
    demo_names_done(&p.held_a);
    demo_names_done(&p.held_b);
    demo_names_done(&p.paragraphs);
    mr_strbuf_release(&p.summary);
    mr_strbuf_release(&p.query);
    mr_strbuf_release(&p.detail);
    mr_strbuf_release(&p.paragraph);
    mr_arena_done(&p.arena);
    free(p.kept);
    return status;
}
