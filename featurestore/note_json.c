/* note_json.c - see note_json.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/note_json.h"

#include <stdlib.h>

mr_status mr_store_get_json_note(mr_store *store, const char *name, json_t **out, mr_error *err)
{
    char *text = NULL;
    size_t len = 0;
    mr_error why = {0};
    *out = NULL;
    mr_status status = mr_store_get_note(store, name, &text, &len, &why);
    if (status == MR_NOT_FOUND)
        return MR_OK;
    if (status == MR_OK)
        status = mr_json_parse(out, name, (mr_str){text, len}, &why);
    free(text);
    if (status != MR_OK && err)
        *err = why;
    return status;
}
