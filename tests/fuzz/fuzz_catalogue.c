/* fuzz_catalogue.c - a catalogue of any bytes is refused with the line, or every item in it can be
 * found by its id and holds what the store can take.
 *
 * Input: an items.jsonl.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/utf8.h"
#include "featurestore/record.h"
#include "ranker/cli/catalogue.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support.h"

static char *folder;

static void require(int condition)
{
    if (!condition)
        abort();
}

static void remove_folder(void)
{
    test_folder_free(folder);
}

static void require_text(mr_str text)
{
    require(text.data && text.data[text.len] == '\0');
    require(mr_utf8_valid_prefix(text.data, text.len) == text.len);
}

static void look_at(const mr_catalogue_item *item)
{
    require_text(item->id);
    require(item->id.len > 0);
    for (size_t i = 0; i < item->fields.n; i++) {
        require_text(item->fields.field[i].name);
        require_text(item->fields.field[i].value);
    }
    require(isfinite(item->prior) && (item->has_prior || item->prior == 0.0));
    require((item->vectors != NULL) == (item->tokens > 0) && (item->tokens > 0) == (item->dim > 0));
    require(item->tokens <= MR_RECORD_MAX_TOKENS && item->dim <= MR_RECORD_MAX_DIM);
    for (size_t i = 0; i < (size_t)item->tokens * item->dim; i++)
        require(isfinite(item->vectors[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!folder) {
        folder = test_folder_new();
        atexit(remove_folder);
    }
    const char *path = test_path(folder, "items.jsonl");
    test_file_write(path, data, size);

    mr_catalogue *catalogue = NULL;
    mr_error err = {0};
    mr_status status = mr_catalogue_open(&catalogue, path, &err);
    if (status != MR_OK) {
        require(!catalogue && err.status == status && strstr(err.message, path));
        require(mr_utf8_valid_prefix(err.message, strlen(err.message)) == strlen(err.message));
        return 0;
    }
    for (size_t i = 0; i < mr_catalogue_count(catalogue); i++) {
        const mr_catalogue_item *item = mr_catalogue_at(catalogue, i);
        look_at(item);
        require(mr_catalogue_find(catalogue, item->id) == item);
    }
    require(!mr_catalogue_find(catalogue, (mr_str){"", 0}));
    mr_catalogue_close(catalogue);
    return 0;
}
