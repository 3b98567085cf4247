/* rpc_reflection.c - see rpc_reflection.h.
 *
 * v1 and v1alpha have the same bytes, so both are read and written as v1.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/service/rpc_reflection.h"

#include <stdlib.h>

#include "proto/grpc/reflection/v1/reflection.pb-c.h"
#include "ranker/service/rpc_descriptors.h"

#define MOST_SERVICES 64

/* protobuf-c's names are longer than a line. */
#define ASKS(what)    GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##what
#define ANSWERS(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##what

typedef Grpc__Reflection__V1__ServerReflectionRequest request_t;
typedef Grpc__Reflection__V1__ServerReflectionResponse response_t;

struct mr_rpc_reflection {
    mr_rpc_descriptors *descriptors;
};

mr_status mr_rpc_reflection_new(mr_rpc_reflection **out, mr_bytes set, mr_error *err)
{
    mr_rpc_reflection *reflection = calloc(1, sizeof *reflection);
    if (!reflection)
        return MR_FAIL(err, NO_MEMORY, "the reflection service");
    const mr_status status = mr_rpc_descriptors_open(&reflection->descriptors, set, err);
    if (status == MR_OK)
        *out = reflection;
    else
        free(reflection);
    return status;
}

void mr_rpc_reflection_free(mr_rpc_reflection *reflection)
{
    if (!reflection)
        return;
    mr_rpc_descriptors_close(reflection->descriptors);
    free(reflection);
}

static void send(mr_rpc_call *call, request_t *request, response_t *response)
{
    static char empty[] = "";
    response->original_request = request;
    response->valid_host = request->host ? request->host : empty;
    const size_t len = grpc__reflection__v1__server_reflection_response__get_packed_size(response);
    uint8_t *bytes = malloc(len ? len : 1);
    if (!bytes) {
        mr_rpc_call_finish(call, MR_RPC_RESOURCE_EXHAUSTED, "no memory for the reply");
        return;
    }
    (void)grpc__reflection__v1__server_reflection_response__pack(response, bytes);
    (void)mr_rpc_call_write(call, bytes, len);
    free(bytes);
}

static void send_error(mr_rpc_call *call, request_t *request, mr_rpc_code code, char *message)
{
    response_t response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    error.error_code = (int32_t)code;
    error.error_message = message;
    response.message_response_case = ANSWERS(ERROR_RESPONSE);
    response.error_response = &error;
    send(call, request, &response);
}

static void send_files(const mr_rpc_reflection *reflection, mr_rpc_call *call, request_t *request,
                       int file)
{
    static char not_found[] = "no such file or symbol";
    mr_bytes files[MR_RPC_DESCRIPTORS_MAX_FILES];
    ProtobufCBinaryData data[MR_RPC_DESCRIPTORS_MAX_FILES];
    response_t response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__FileDescriptorResponse found =
        GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    if (file < 0) {
        send_error(call, request, MR_RPC_NOT_FOUND, not_found);
        return;
    }
    found.n_file_descriptor_proto = mr_rpc_descriptors_closure(reflection->descriptors, file, files,
                                                               MR_RPC_DESCRIPTORS_MAX_FILES);
    for (size_t i = 0; i < found.n_file_descriptor_proto; i++)
        data[i] = (ProtobufCBinaryData){files[i].len, (uint8_t *)(uintptr_t)files[i].data};
    found.file_descriptor_proto = data;
    response.message_response_case = ANSWERS(FILE_DESCRIPTOR_RESPONSE);
    response.file_descriptor_response = &found;
    send(call, request, &response);
}

static void send_services(const mr_rpc_reflection *reflection, mr_rpc_call *call,
                          request_t *request)
{
    Grpc__Reflection__V1__ServiceResponse row[MOST_SERVICES];
    Grpc__Reflection__V1__ServiceResponse *rows[MOST_SERVICES];
    response_t response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__ListServiceResponse list =
        GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    for (; list.n_service < MOST_SERVICES; list.n_service++) {
        const char *name = mr_rpc_descriptors_service(reflection->descriptors, list.n_service);
        if (!name)
            break;
        grpc__reflection__v1__service_response__init(&row[list.n_service]);
        row[list.n_service].name = (char *)(uintptr_t)name;
        rows[list.n_service] = &row[list.n_service];
    }
    list.service = rows;
    response.message_response_case = ANSWERS(LIST_SERVICES_RESPONSE);
    response.list_services_response = &list;
    send(call, request, &response);
}

/* proto3 has no extensions but those of options, and we define none. */
static void send_extensions(const mr_rpc_reflection *reflection, mr_rpc_call *call,
                            request_t *request)
{
    static char not_found[] = "no such message";
    response_t response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__ExtensionNumberResponse none =
        GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;
    if (!mr_rpc_descriptors_is_message(reflection->descriptors,
                                       request->all_extension_numbers_of_type)) {
        send_error(call, request, MR_RPC_NOT_FOUND, not_found);
        return;
    }
    none.base_type_name = request->all_extension_numbers_of_type;
    response.message_response_case = ANSWERS(ALL_EXTENSION_NUMBERS_RESPONSE);
    response.all_extension_numbers_response = &none;
    send(call, request, &response);
}

static void answer(void *context, mr_rpc_call *call)
{
    static char no_extension[] = "no such extension", no_question[] = "the request asks nothing";
    const mr_rpc_reflection *reflection = context;
    if (mr_rpc_call_request_ended(call)) {
        mr_rpc_call_finish(call, MR_RPC_OK, NULL);
        return;
    }
    const mr_bytes bytes = mr_rpc_call_request(call);
    request_t *request =
        grpc__reflection__v1__server_reflection_request__unpack(NULL, bytes.len, bytes.data);
    if (!request) {
        mr_rpc_call_finish(call, MR_RPC_INVALID_ARGUMENT,
                           "the message is no ServerReflectionRequest");
        return;
    }
    switch (request->message_request_case) {
    case ASKS(FILE_BY_FILENAME):
        send_files(reflection, call, request,
                   mr_rpc_descriptors_file(reflection->descriptors, request->file_by_filename));
        break;
    case ASKS(FILE_CONTAINING_SYMBOL):
        send_files(
            reflection, call, request,
            mr_rpc_descriptors_symbol(reflection->descriptors, request->file_containing_symbol));
        break;
    case ASKS(LIST_SERVICES): send_services(reflection, call, request); break;
    case ASKS(ALL_EXTENSION_NUMBERS_OF_TYPE): send_extensions(reflection, call, request); break;
    case ASKS(FILE_CONTAINING_EXTENSION):
        send_error(call, request, MR_RPC_NOT_FOUND, no_extension);
        break;
    default: send_error(call, request, MR_RPC_INVALID_ARGUMENT, no_question); break;
    }
    grpc__reflection__v1__server_reflection_request__free_unpacked(request, NULL);
}

size_t mr_rpc_reflection_methods(mr_rpc_reflection *reflection,
                                 mr_rpc_method out[MR_RPC_REFLECTION_METHODS])
{
    static const char *const paths[MR_RPC_REFLECTION_METHODS] = {
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};
    for (size_t i = 0; i < MR_RPC_REFLECTION_METHODS; i++)
        out[i] = (mr_rpc_method){.path = paths[i],
                                 .kind = MR_RPC_BIDI,
                                 .handle = answer,
                                 .context = reflection,
                                 .long_lived = true};
    return MR_RPC_REFLECTION_METHODS;
}
