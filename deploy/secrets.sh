#!/bin/sh
# Makes what the nodes of a cluster share in secret: an authority with one certificate for mutual TLS between nodes, the
# token of the API and the password of the database. Files that are there already stay as they are.
#   deploy/secrets.sh DIR
set -eu
umask 077
dir=${1:?"usage: deploy/secrets.sh DIR"}
mkdir -p "$dir"
cd "$dir"

random() { head -c 32 /dev/urandom | base64 | tr -d '/+=\n'; }
[ -s token ] || random > token
[ -s journal-password ] || random > journal-password

if [ ! -s node.pem ]; then
    openssl req -x509 -newkey rsa:3072 -nodes -days 3650 -subj "/CN=bbmr authority" -keyout authority.key -out authority.pem 2> /dev/null
    openssl req -newkey rsa:3072 -nodes -subj "/CN=bbmr node" -keyout node.key -out node.csr 2> /dev/null
    printf 'extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n' > node.ext
    openssl x509 -req -in node.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 825 -extfile node.ext -out node.crt 2> /dev/null
    cat node.crt node.key > node.pem
    rm -f node.csr node.ext node.crt node.key authority.srl
fi
# Containers run as another user.
chmod 644 token journal-password node.pem authority.pem
echo "$dir: token, journal-password, node.pem, authority.pem (keep authority.key elsewhere)"
