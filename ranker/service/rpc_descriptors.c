/* rpc_descriptors.c - see rpc_descriptors.h. Field numbers are those of
 * google/protobuf/descriptor.proto.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/service/rpc_descriptors.h"

#include <stdlib.h>
#include <string.h>

#define MOST_SYMBOLS ((size_t)8192)
#define MOST_DEPTH   32
#define MOST_MEMORY  ((size_t)16 << 20)

enum { SET_FILE = 1 };
enum { FILE_NAME = 1, FILE_PACKAGE, FILE_DEPENDENCY, FILE_MESSAGE, FILE_ENUM, FILE_SERVICE };
enum { MESSAGE_NAME = 1, MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_ENUM, MESSAGE_ONEOF = 8 };
enum { NAME = 1, SECOND = 2 }; /* an enum's values and a service's methods are both field 2 */

typedef struct {
    mr_bytes bytes;
    mr_str name;
    int import[MR_RPC_DESCRIPTORS_MAX_FILES];
    size_t n_imports;
} file_entry;

typedef struct {
    const char *name;
    int file;
    bool message, service;
} symbol;

struct mr_rpc_descriptors {
    mr_arena arena;
    file_entry *files;
    size_t n_files;
    symbol *symbols; /* sorted by name when open */
    size_t n_symbols;
    const char **services;
    size_t n_services;
};

/* ---- protobuf, as far as needed ---- */

typedef struct {
    const uint8_t *p, *end;
    bool bad;
} cursor;

static cursor cursor_of(mr_bytes bytes)
{
    const uint8_t *p = bytes.data;
    return (cursor){p, p + bytes.len, false};
}

static uint64_t varint(cursor *cur)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && cur->p < cur->end; shift += 7) {
        const uint8_t byte = *cur->p++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
    cur->bad = true;
    return 0;
}

/* The next field; out holds its bytes when it has a length, else nothing. False at the end. */
static bool next_field(cursor *cur, unsigned *number, mr_bytes *out)
{
    if (cur->bad || cur->p == cur->end)
        return false;
    const uint64_t key = varint(cur);
    uint64_t skip = 0;
    *number = (unsigned)(key >> 3);
    *out = (mr_bytes){NULL, 0};
    switch (key & 7) {
    case 0: (void)varint(cur); break;
    case 1: skip = 8; break;
    case 2: skip = varint(cur); break;
    case 5: skip = 4; break;
    default: cur->bad = true;
    }
    if (cur->bad || skip > (size_t)(cur->end - cur->p)) {
        cur->bad = true;
        return false;
    }
    if ((key & 7) == 2)
        *out = (mr_bytes){cur->p, (size_t)skip};
    cur->p += skip;
    return true;
}

static mr_str text_field(mr_bytes message, unsigned wanted)
{
    cursor cur = cursor_of(message);
    unsigned number;
    mr_bytes value;
    while (next_field(&cur, &number, &value)) {
        if (number == wanted && value.data)
            return (mr_str){value.data, value.len};
    }
    return (mr_str){"", 0};
}

/* ---- the index ---- */

static const char *join(mr_rpc_descriptors *d, const char *scope, mr_str name)
{
    const size_t len = strlen(scope);
    char *text = mr_arena_array(&d->arena, char, len + 1 + name.len + 1);
    if (!text)
        return NULL;
    memcpy(text, scope, len);
    if (len)
        text[len] = '.';
    memcpy(text + len + (len > 0), name.data, name.len);
    text[len + (len > 0) + name.len] = '\0';
    return text;
}

/* The full name; NULL when memory or the table is full, or the name is empty. */
static const char *add_symbol(mr_rpc_descriptors *d, int file, const char *scope, mr_str name,
                              bool message, bool service)
{
    const char *full = name.len ? join(d, scope, name) : NULL;
    if (!full || d->n_symbols == MOST_SYMBOLS)
        return NULL;
    d->symbols[d->n_symbols++] = (symbol){full, file, message, service};
    if (service)
        d->services[d->n_services++] = full;
    return full;
}

static bool add_enum(mr_rpc_descriptors *d, int file, const char *scope, mr_bytes bytes)
{
    cursor cur = cursor_of(bytes);
    unsigned number;
    mr_bytes value;
    if (!add_symbol(d, file, scope, text_field(bytes, NAME), false, false))
        return false;
    while (next_field(&cur, &number, &value)) { /* values live beside the enum, as in C */
        if (number == SECOND && !add_symbol(d, file, scope, text_field(value, NAME), false, false))
            return false;
    }
    return !cur.bad;
}

static bool add_message(mr_rpc_descriptors *d, int file, const char *scope, mr_bytes bytes,
                        int depth)
{
    cursor cur = cursor_of(bytes);
    unsigned number;
    mr_bytes value;
    const char *full = add_symbol(d, file, scope, text_field(bytes, MESSAGE_NAME), true, false);
    bool done = full && depth < MOST_DEPTH;
    while (done && next_field(&cur, &number, &value)) {
        if (number == MESSAGE_FIELD || number == MESSAGE_ONEOF)
            done = add_symbol(d, file, full, text_field(value, NAME), false, false) != NULL;
        else if (number == MESSAGE_NESTED)
            done = add_message(d, file, full, value, depth + 1);
        else if (number == MESSAGE_ENUM)
            done = add_enum(d, file, full, value);
    }
    return done && !cur.bad;
}

static bool add_service(mr_rpc_descriptors *d, int file, const char *scope, mr_bytes bytes)
{
    cursor cur = cursor_of(bytes);
    unsigned number;
    mr_bytes value;
    const char *full = add_symbol(d, file, scope, text_field(bytes, NAME), false, true);
    bool done = full != NULL;
    while (done && next_field(&cur, &number, &value)) {
        if (number == SECOND)
            done = add_symbol(d, file, full, text_field(value, NAME), false, false) != NULL;
    }
    return done && !cur.bad;
}

static bool add_file(mr_rpc_descriptors *d, int file)
{
    const mr_bytes bytes = d->files[file].bytes;
    const char *package = join(d, "", text_field(bytes, FILE_PACKAGE));
    cursor cur = cursor_of(bytes);
    unsigned number;
    mr_bytes value;
    bool done = package != NULL;
    while (done && next_field(&cur, &number, &value)) {
        if (number == FILE_MESSAGE)
            done = add_message(d, file, package, value, 0);
        else if (number == FILE_ENUM)
            done = add_enum(d, file, package, value);
        else if (number == FILE_SERVICE)
            done = add_service(d, file, package, value);
    }
    return done && !cur.bad;
}

static int find_file(const mr_rpc_descriptors *d, mr_str name)
{
    for (size_t i = 0; i < d->n_files; i++) {
        if (mr_str_equal(d->files[i].name, name))
            return (int)i;
    }
    return -1;
}

static mr_status resolve_imports(mr_rpc_descriptors *d, file_entry *file, mr_error *err)
{
    cursor cur = cursor_of(file->bytes);
    unsigned number;
    mr_bytes value;
    while (next_field(&cur, &number, &value)) {
        if (number != FILE_DEPENDENCY || file->n_imports == MR_RPC_DESCRIPTORS_MAX_FILES)
            continue;
        const mr_str name = {value.data, value.len};
        const int import = find_file(d, name);
        if (import < 0)
            return MR_FAIL(err, CORRUPT,
                           "descriptor set: '%.*s' imports '%.*s', which the set does not hold; "
                           "make it with --include_imports",
                           MR_STR_ARG(file->name), MR_STR_ARG(name));
        file->import[file->n_imports++] = import;
    }
    return MR_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const symbol *)a)->name, ((const symbol *)b)->name);
}

static mr_status fill(mr_rpc_descriptors *d, mr_bytes set, mr_error *err)
{
    cursor cur = cursor_of(set);
    unsigned number;
    mr_bytes value;
    while (next_field(&cur, &number, &value)) {
        if (number != SET_FILE || !value.data)
            continue;
        if (d->n_files == MR_RPC_DESCRIPTORS_MAX_FILES)
            return MR_FAIL(err, EXHAUSTED, "descriptor set: more than %d files",
                           MR_RPC_DESCRIPTORS_MAX_FILES);
        d->files[d->n_files++] = (file_entry){.bytes = value, .name = text_field(value, FILE_NAME)};
    }
    if (cur.bad || d->n_files == 0)
        return MR_FAIL(err, CORRUPT, "descriptor set of %zu bytes: not a FileDescriptorSet",
                       set.len);
    for (size_t i = 0; i < d->n_files; i++) {
        const mr_status status = resolve_imports(d, &d->files[i], err);
        if (status != MR_OK)
            return status;
        if (!add_file(d, (int)i))
            return MR_FAIL(err, CORRUPT,
                           "descriptor set: file '%.*s' is broken, too deep, or has too many names",
                           MR_STR_ARG(d->files[i].name));
    }
    qsort(d->symbols, d->n_symbols, sizeof *d->symbols, by_name);
    return MR_OK;
}

mr_status mr_rpc_descriptors_open(mr_rpc_descriptors **out, mr_bytes set, mr_error *err)
{
    mr_rpc_descriptors *d = calloc(1, sizeof *d);
    if (!d)
        return MR_FAIL(err, NO_MEMORY, "descriptor set");
    d->arena.limit = MOST_MEMORY;
    d->files = mr_arena_array(&d->arena, file_entry, MR_RPC_DESCRIPTORS_MAX_FILES);
    d->symbols = mr_arena_array(&d->arena, symbol, MOST_SYMBOLS);
    d->services = mr_arena_array(&d->arena, const char *, MOST_SYMBOLS);
    const mr_status status = d->files && d->symbols && d->services
                                 ? fill(d, set, err)
                                 : MR_FAIL(err, NO_MEMORY, "descriptor set");
    if (status == MR_OK)
        *out = d;
    else
        mr_rpc_descriptors_close(d);
    return status;
}

void mr_rpc_descriptors_close(mr_rpc_descriptors *descriptors)
{
    if (!descriptors)
        return;
    mr_arena_done(&descriptors->arena);
    free(descriptors);
}

int mr_rpc_descriptors_file(const mr_rpc_descriptors *descriptors, const char *name)
{
    return find_file(descriptors, mr_str_of(name));
}

static const symbol *find_symbol(const mr_rpc_descriptors *d, const char *name)
{
    const symbol key = {.name = name};
    return bsearch(&key, d->symbols, d->n_symbols, sizeof *d->symbols, by_name);
}

int mr_rpc_descriptors_symbol(const mr_rpc_descriptors *descriptors, const char *name)
{
    const symbol *found = find_symbol(descriptors, name);
    return found ? found->file : -1;
}

bool mr_rpc_descriptors_is_message(const mr_rpc_descriptors *descriptors, const char *name)
{
    const symbol *found = find_symbol(descriptors, name);
    return found && found->message;
}

size_t mr_rpc_descriptors_closure(const mr_rpc_descriptors *descriptors, int file, mr_bytes *out,
                                  size_t most)
{
    int order[MR_RPC_DESCRIPTORS_MAX_FILES];
    bool seen[MR_RPC_DESCRIPTORS_MAX_FILES] = {false};
    size_t n = 0, done = 0;
    order[n++] = file;
    seen[file] = true;
    for (; done < n && done < most; done++) {
        const file_entry *entry = &descriptors->files[order[done]];
        out[done] = entry->bytes;
        for (size_t i = 0; i < entry->n_imports; i++) {
            if (!seen[entry->import[i]]) {
                seen[entry->import[i]] = true;
                order[n++] = entry->import[i];
            }
        }
    }
    return done;
}

const char *mr_rpc_descriptors_service(const mr_rpc_descriptors *descriptors, size_t i)
{
    return i < descriptors->n_services ? descriptors->services[i] : NULL;
}
