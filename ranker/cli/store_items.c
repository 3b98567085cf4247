/* store_items.c - see store_items.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/cli/store_items.h"

#include <stdio.h>

#include "encoders/space.h"

#define MAX_SPACES 16

/* The first spaces in words: "9f.. and 4c..". */
static void list_spaces(const uint64_t *spaces, size_t n, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < n && i < 3 && used < size; i++) {
        char text[MR_SPACE_TEXT];
        mr_space_format(spaces[i], text);
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", text);
    }
    if (n > 3 && used < size)
        snprintf(out + used, size - used, " and %zu more", n - 3);
}

mr_status mr_store_items_check(mr_store *store, const char *url, const mr_bundle *bundle,
                               mr_error *err)
{
    uint64_t spaces[MAX_SPACES];
    size_t n = 0;
    if (!bundle->mixed)
        return MR_OK;
    mr_status status = mr_store_spaces(store, MR_ENTITY_ITEM, spaces, MAX_SPACES, &n, err);
    if (status != MR_OK)
        return status;
    for (size_t i = 0; i < n && i < MAX_SPACES; i++)
        if (spaces[i] == bundle->item.space)
            return MR_OK;
    char wanted[MR_SPACE_TEXT], found[128];
    mr_space_format(bundle->item.space, wanted);
    if (n == 0)
        return MR_FAIL(err, NOT_FOUND, "store '%s' has no items; `mixrank encode` puts them there",
                       url);
    list_spaces(spaces, n < MAX_SPACES ? n : MAX_SPACES, found, sizeof found);
    return MR_FAIL(err, MISMATCH,
                   "store '%s' has no item of space %s, which bundle '%s' reads; its items are of "
                   "space %s: encode them with this bundle",
                   url, wanted, bundle->name, found);
}

mr_status mr_store_items_spaces(mr_store *store, json_t **out, mr_error *err)
{
    uint64_t spaces[MAX_SPACES];
    size_t n = 0;
    mr_status status = mr_store_spaces(store, MR_ENTITY_ITEM, spaces, MAX_SPACES, &n, err);
    if (status != MR_OK)
        return status;
    json_t *list = json_array();
    for (size_t i = 0; i < n && i < MAX_SPACES; i++) {
        char text[MR_SPACE_TEXT];
        mr_space_format(spaces[i], text);
        json_array_append_new(list, json_string(text));
    }
    *out = list;
    return MR_OK;
}
