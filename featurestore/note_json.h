/* note_json.h - notes of a store that are JSON objects.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_NOTE_JSON_H
#define MR_FEATURESTORE_NOTE_JSON_H

#include "core/json.h"
#include "featurestore/store.h"

/* *out is NULL when the store has no such note, else the caller's to json_decref. A note that is no
 * JSON fails as mr_json_parse does. */
MR_NODISCARD mr_status mr_store_get_json_note(mr_store *store, const char *name, json_t **out,
                                              mr_error *err);

#endif
