#!/bin/sh
# rpc_node.sh - @grpc/grpc-js (gRPC in JavaScript, not the C core) against rpc_test_server. Installs
# the client into a folder of the build once; where there is no node or no registry, exits with 77.
#
#     rpc_node.sh BUILD_FOLDER plain|tls|mtls
# SPDX-License-Identifier: Apache-2.0
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1/grpc-js
for tool in node npm openssl; do
    if ! command -v $tool >/dev/null; then
        echo "skipped: there is no $tool"
        exit 77
    fi
done
if [ ! -d "$folder/node_modules/@grpc/grpc-js" ]; then
    mkdir -p "$folder"
    if ! (cd "$folder" && timeout 60 npm install --silent --no-save --prefix . \
        @grpc/grpc-js@1 @grpc/proto-loader@0.7 >npm.log 2>&1); then
        echo "skipped: npm cannot install @grpc/grpc-js: $(tail -n 1 "$folder/npm.log")"
        exit 77
    fi
fi
NODE_PATH=$folder/node_modules exec node "$here/rpc_node.js" "$2"
