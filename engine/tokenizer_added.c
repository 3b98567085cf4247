/* tokenizer_added.c - added tokens: finding them in a text.
 *
 * Leftmost, and of those that begin there the longest; the search goes on behind a hit. A hit that
 * single_word refuses is passed over whole, as the library does. The tokens are sorted, so that all
 * that begin with the bytes seen so far are neighbours: each further byte narrows that range by
 * binary search. Only bytes that begin some token start a search; in ordinary text almost none do.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "engine/tokenizer_private.h"

static int by_normalized(const void *a, const void *b)
{
    const mr_str x = (*(const mr_tok_added *const *)a)->normalized;
    const mr_str y = (*(const mr_tok_added *const *)b)->normalized;
    int order = memcmp(x.data, y.data, x.len < y.len ? x.len : y.len);
    return order ? order : (x.len > y.len) - (x.len < y.len);
}

mr_status mr_tok_added_set_init(mr_tok_added_set *set, mr_arena *arena, const mr_tok_added *added,
                                size_t n, bool normalized, const char *name, mr_error *err)
{
    set->sorted = mr_arena_array(arena, const mr_tok_added *, n);
    if (!set->sorted)
        return MR_FAIL(err, NO_MEMORY, "%s: a table of %zu added tokens", name, n);
    set->n = 0;
    for (size_t i = 0; i < n; i++) {
        if (added[i].is_normalized == normalized)
            set->sorted[set->n++] = &added[i];
    }
    if (set->n)
        qsort(set->sorted, set->n, sizeof *set->sorted, by_normalized);

    uint32_t at = 0;
    for (uint32_t byte = 0; byte < 256; byte++) {
        set->first[byte] = at;
        while (at < set->n && (unsigned char)set->sorted[at]->normalized.data[0] == byte)
            at++;
    }
    set->first[256] = set->n;
    for (uint32_t i = 1; i < set->n; i++) {
        if (mr_str_equal(set->sorted[i - 1]->normalized, set->sorted[i]->normalized))
            return MR_FAIL(err, CORRUPT,
                           "%s: the added tokens '%.*s' and '%.*s' are searched for with the same "
                           "text",
                           name, MR_STR_ARG(set->sorted[i - 1]->content),
                           MR_STR_ARG(set->sorted[i]->content));
    }
    return MR_OK;
}

/* First index in [low, high) whose byte at depth is at least `byte`; all there are longer. */
static uint32_t lower_bound(const mr_tok_added_set *set, uint32_t low, uint32_t high, size_t depth,
                            unsigned byte)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((unsigned char)set->sorted[middle]->normalized.data[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest token at the start of the text, or NULL. */
static const mr_tok_added *longest_at(const mr_tok_added_set *set, const char *text, size_t len)
{
    uint32_t low = set->first[(unsigned char)text[0]];
    uint32_t high = set->first[(unsigned char)text[0] + 1];
    const mr_tok_added *found = NULL;
    for (size_t depth = 1; low < high; depth++) {
        if (set->sorted[low]->normalized.len == depth) /* the shortest sorts first */
            found = set->sorted[low++];
        if (depth == len)
            break;
        const unsigned byte = (unsigned char)text[depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1);
    }
    return found;
}

static const char *char_before(const char *start, const char *at)
{
    do
        at--;
    while (at > start && ((unsigned char)*at & 0xC0) == 0x80);
    return at;
}

/* True when no word character touches [start, end). */
static bool stands_alone(const mr_tok_classes *classes, mr_str text, size_t start, size_t end)
{
    size_t size;
    if (start > 0) {
        const char *before = char_before(text.data, text.data + start);
        if (mr_tok_class_at(classes, before, &size) & MR_CLASS_WORD)
            return false;
    }
    return end == text.len || !(mr_tok_class_at(classes, text.data + end, &size) & MR_CLASS_WORD);
}

static size_t spaces_before(const mr_tok_classes *classes, mr_str text, size_t at, size_t stop)
{
    size_t size;
    while (at > stop) {
        const char *before = char_before(text.data, text.data + at);
        if (!(mr_tok_class_at(classes, before, &size) & MR_CLASS_SPACE))
            break;
        at = (size_t)(before - text.data);
    }
    return at;
}

static size_t spaces_after(const mr_tok_classes *classes, mr_str text, size_t at)
{
    size_t size;
    while (at < text.len && mr_tok_class_at(classes, text.data + at, &size) & MR_CLASS_SPACE)
        at += size;
    return at;
}

/* What is before the first byte that can begin a token. */
static size_t skip(const mr_tok_added_set *set, mr_str text, size_t at)
{
    while (at < text.len) {
        unsigned char byte = (unsigned char)text.data[at];
        if (set->first[byte] < set->first[byte + 1])
            break;
        at++;
    }
    return at;
}

mr_status mr_tok_added_split(const mr_tok_added_set *set, const mr_tok_classes *classes,
                             mr_str text, mr_tok_added_piece piece, void *context)
{
    /* done: text up to here has been handed out. A token with rstrip hands out blanks in which the
     * next hit may begin: then done is beyond `at`, and that hit is handed out all the same. */
    size_t done = 0;
    size_t blanks = 0, blanks_end = 0; /* a run of blanks that was measured is not measured again */
    for (size_t at = 0; set->n && (at = skip(set, text, at)) < text.len;) {
        const mr_tok_added *token = longest_at(set, text.data + at, text.len - at);
        if (!token) {
            at++;
            continue;
        }
        size_t start = at, end = at + token->normalized.len;
        at = end;
        if (token->single_word && !stands_alone(classes, text, start, end))
            continue;
        if (token->lstrip)
            start = done < start ? spaces_before(classes, text, start, done) : done;
        if (token->rstrip) {
            if (end < blanks || end >= blanks_end) {
                blanks = end;
                blanks_end = spaces_after(classes, text, end);
            }
            end = blanks_end;
        }
        mr_status status = MR_OK;
        if (done < start)
            status = piece(context, done, start, NULL);
        if (status == MR_OK && start < end) /* blanks of the hit before may be all it has */
            status = piece(context, start, end, token);
        if (status != MR_OK)
            return status;
        done = end;
    }
    return done < text.len ? piece(context, done, text.len, NULL) : MR_OK;
}
