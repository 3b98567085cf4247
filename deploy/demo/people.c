/* people.c - see people.h.
 *
 * Names are compared by the SHA-256 of their lower-case form, so that the table of people holds no
 * text. Folds are cut by sha256("split" + the first 12 hex digits of that hash): the same people
 * are then on the same side whatever else changes in the archive.
 * SPDX-License-Identifier: Apache-2.0 */
#include "deploy/demo/people.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utf8proc.h>

#include "core/hash.h"
#include "core/strbuf.h"
#include "core/utf8.h"

#define MAX_NAME    512 /* bytes of a name that count */
#define TEST_SHARE  0.4
#define VALID_SHARE 0.1

/* What one entry of a Maintainer or Uploaders field gives: the names are spans of the index. */
typedef struct {
    mr_str name;
    mr_str address;
} contact;

typedef struct {
    char digest[MR_SHA256_HEX];
    demo_ids basket;
    demo_fold fold;
} known_person;

/* Open addressing over digests; everything in it is wiped by table_done. */
typedef struct {
    known_person *person;
    size_t n, capacity;
    uint32_t *slot;
    size_t n_slots;
} table;

/* A plain memset before free may be optimised away. */
static void wipe(void *memory, size_t len)
{
    volatile unsigned char *byte = memory;
    while (len--)
        *byte++ = 0;
}

static bool has_any(mr_str text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(words[i]);
        for (size_t at = 0; at + len <= text.len; at++)
            if (strncasecmp(text.data + at, words[i], len) == 0)
                return true;
    }
    return false;
}

static bool is_team(const contact *who)
{
    static const char *const in_name[] = {
        "team",       "group",      "maintainer", "developer", "packag",    "project",
        "tracker",    "task force", "list.",      "lists.",    "qa ",       "debian ",
        "gnome",      "kde",        "crew",       "admin",     "committee", "strike",
        "hackers",    "devel",      "upstream",   "orphan",    "install",   "mirror",
        "consortium", "e.v.",       "foundation", "inc.",      "gmbh",
    };
    static const char *const in_address[] = {
        "lists.", "tracker.debian", "packages.debian", "packages@",
        "alioth", "-devel@",        "-maint",          "team",
    };
    return has_any(who->name, in_name, sizeof in_name / sizeof *in_name) ||
           has_any(who->address, in_address, sizeof in_address / sizeof *in_address);
}

/* The next 'Name <address>' of a list; a comma inside a quoted name does not separate. */
static bool next_contact(mr_str *rest, contact *out)
{
    size_t begin = 0;
    for (size_t i = 0; i < rest->len; i++) {
        char c = rest->data[i];
        if (c == ',' || c == '>') {
            begin = i + 1;
        } else if (c == '"') {
            const char *close = memchr(rest->data + i + 1, '"', rest->len - i - 1);
            if (close)
                i = (size_t)(close - rest->data);
        } else if (c == '<') {
            const char *close = memchr(rest->data + i, '>', rest->len - i);
            if (!close)
                return false;
            size_t end = (size_t)(close - rest->data);
            out->name = demo_trim((mr_str){rest->data + begin, i - begin});
            out->address = demo_trim((mr_str){rest->data + i + 1, end - i - 1});
            while (out->name.len && out->name.data[0] == '"')
                out->name = (mr_str){out->name.data + 1, out->name.len - 1};
            while (out->name.len && out->name.data[out->name.len - 1] == '"')
                out->name.len--;
            out->name = demo_trim(out->name);
            *rest = (mr_str){rest->data + end + 1, rest->len - end - 1};
            return true;
        }
    }
    return false;
}

/* Lower case, so that two spellings of one name meet. Invalid bytes stay. */
static size_t lower_name(mr_str name, char out[MAX_NAME])
{
    size_t len = 0;
    for (size_t i = 0; i < name.len;) {
        uint32_t code_point;
        size_t used = mr_utf8_decode(name.data + i, name.len - i, &code_point);
        char letter[4];
        size_t n =
            used ? mr_utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)code_point), letter)
                 : 0;
        if (!n) {
            letter[0] = name.data[i];
            n = used = 1;
        }
        if (letter[0] == '\n')
            letter[0] = ' ';
        if (len + n > MAX_NAME)
            break;
        memcpy(out + len, letter, n);
        len += n;
        i += used;
    }
    return len;
}

static mr_status digest_of(const contact *who, char digest[MR_SHA256_HEX], mr_error *err)
{
    char name[MAX_NAME];
    size_t len = lower_name(who->name.len ? who->name : who->address, name);
    mr_status status = mr_hash_sha256_hex(name, len, digest, err);
    wipe(name, sizeof name);
    return status;
}

static mr_status fold_of(const char digest[MR_SHA256_HEX], demo_fold *out, mr_error *err)
{
    double unit = 0;
    mr_status status = demo_unit_hash("split", (mr_str){digest, 12}, &unit, err);
    *out = unit < TEST_SHARE                 ? DEMO_TEST
           : unit < TEST_SHARE + VALID_SHARE ? DEMO_VALID
                                             : DEMO_TRAIN;
    return status;
}

static size_t slot_of(const table *people, const char digest[MR_SHA256_HEX])
{
    size_t at = (size_t)mr_hash_xxh3(digest, MR_SHA256_HEX - 1) & (people->n_slots - 1);
    while (people->slot[at] != DEMO_NONE &&
           memcmp(people->person[people->slot[at]].digest, digest, MR_SHA256_HEX - 1) != 0)
        at = (at + 1) & (people->n_slots - 1);
    return at;
}

/* Not realloc: it would leave digests behind in freed memory. */
static mr_status grow(table *people, mr_error *err)
{
    size_t capacity = people->capacity ? people->capacity * 2 : 512;
    known_person *person = calloc(capacity, sizeof *person);
    uint32_t *slot = malloc(capacity * 2 * sizeof *slot);
    if (!person || !slot) {
        free(person);
        free(slot);
        return MR_FAIL(err, NO_MEMORY, "a table of %zu people", capacity);
    }
    if (people->n) {
        memcpy(person, people->person, people->n * sizeof *person);
        wipe(people->person, people->n * sizeof *person);
    }
    free(people->person);
    free(people->slot);
    people->person = person;
    people->slot = slot;
    people->capacity = capacity;
    people->n_slots = capacity * 2;
    for (size_t i = 0; i < people->n_slots; i++)
        slot[i] = DEMO_NONE;
    for (size_t i = 0; i < people->n; i++)
        slot[slot_of(people, person[i].digest)] = (uint32_t)i;
    return MR_OK;
}

static mr_status add(table *people, const contact *who, uint32_t item, mr_error *err)
{
    char digest[MR_SHA256_HEX];
    mr_status status = digest_of(who, digest, err);
    if (status == MR_OK && people->n == people->capacity)
        status = grow(people, err);
    if (status == MR_OK) {
        size_t at = slot_of(people, digest);
        if (people->slot[at] == DEMO_NONE) {
            known_person *person = &people->person[people->n];
            status = fold_of(digest, &person->fold, err);
            memcpy(person->digest, digest, sizeof digest);
            people->slot[at] = (uint32_t)people->n++;
        }
        if (status == MR_OK)
            status = demo_ids_push(&people->person[people->slot[at]].basket, item, err);
    }
    wipe(digest, sizeof digest);
    return status;
}

static void table_done(table *people)
{
    for (size_t i = 0; i < people->n; i++)
        demo_ids_done(&people->person[i].basket);
    if (people->person)
        wipe(people->person, people->n * sizeof *people->person);
    free(people->person);
    free(people->slot);
    *people = (table){0};
}

static mr_status read_sources(table *people, mr_str text, const demo_items *items, mr_error *err)
{
    demo_stanza_reader reader = demo_stanzas_of("Sources", text);
    reader.private_text = true;
    demo_stanza stanza;
    mr_status status;
    while ((status = demo_stanza_next(&reader, &stanza, err)) == MR_OK && stanza.n > 0) {
        mr_str source;
        if ((status = demo_stanza_need(&reader, &stanza, "Package", &source, err)) != MR_OK)
            return status;
        uint32_t number = demo_names_find(&items->sources, source);
        if (number == DEMO_NONE)
            continue;
        static const char *const field[] = {"Maintainer", "Uploaders"};
        for (int i = 0; i < 2; i++) {
            mr_str list = demo_stanza_get(&stanza, field[i]);
            contact who;
            while (next_contact(&list, &who)) {
                if (is_team(&who) || !(who.name.len || who.address.len))
                    continue;
                status = add(people, &who, items->item_of_source[number], err);
                if (status != MR_OK)
                    return status;
            }
        }
    }
    return status;
}

/* --- from baskets to pseudonyms -------------------------------------------------------------- */

static mr_status key_of(const demo_items *items, const demo_ids *basket, uint64_t *out,
                        mr_error *err)
{
    mr_strbuf ids = {0};
    for (size_t i = 0; i < basket->n; i++) {
        mr_str id = items->item[basket->id[i]].id;
        mr_strbuf_append(&ids, id.data, id.len);
        mr_strbuf_append(&ids, "\n", 1);
    }
    mr_status status = MR_OK;
    if (ids.failed)
        status = MR_FAIL(err, NO_MEMORY, "a basket of %zu items", basket->n);
    else
        *out = mr_hash_xxh3(ids.data, ids.len);
    mr_strbuf_release(&ids);
    return status;
}

/* By what the baskets hold. Equal baskets differ in their fold at most, and then their order says
 * nothing about who is who. */
static int compare_people(const void *a, const void *b)
{
    const demo_person *x = a;
    const demo_person *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->basket.n != y->basket.n)
        return x->basket.n < y->basket.n ? -1 : 1;
    for (size_t i = 0; i < x->basket.n; i++)
        if (x->basket.id[i] != y->basket.id[i])
            return x->basket.id[i] < y->basket.id[i] ? -1 : 1;
    return (int)x->fold - (int)y->fold;
}

mr_status demo_people_read(demo_people *out, mr_str sources, const demo_items *items, mr_error *err)
{
    *out = (demo_people){0};
    table people = {0};
    mr_status status = read_sources(&people, sources, items, err);
    if (status != MR_OK)
        goto done;

    out->person = calloc(people.n ? people.n : 1, sizeof *out->person);
    if (!out->person) {
        status = MR_FAIL(err, NO_MEMORY, "a table of %zu people", people.n);
        goto done;
    }
    for (size_t i = 0; i < people.n; i++) {
        demo_ids *basket = &people.person[i].basket;
        demo_ids_sort(basket);
        if (basket->n < 2)
            continue;
        demo_person *person = &out->person[out->n++];
        person->fold = people.person[i].fold;
        person->basket = *basket; /* moved */
        *basket = (demo_ids){0};
        status = key_of(items, &person->basket, &person->key, err);
        if (status != MR_OK)
            goto done;
    }
    qsort(out->person, out->n, sizeof *out->person, compare_people);
    for (size_t i = 0; i < out->n; i++)
        snprintf(out->person[i].id, sizeof out->person[i].id, "u%06zu", i + 1);

done:
    table_done(&people);
    if (status != MR_OK)
        demo_people_done(out);
    return status;
}

void demo_people_done(demo_people *people)
{
    for (size_t i = 0; i < people->n; i++)
        demo_ids_done(&people->person[i].basket);
    free(people->person);
    *people = (demo_people){0};
}
