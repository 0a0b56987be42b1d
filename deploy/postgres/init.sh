#!/bin/sh
# Gives every service its role and database when the postgres container makes its data: the container's counterpart of
# `provision` in deploy/local/postgres.py, from the same text. Mount this file into /docker-entrypoint-initdb.d/ and
# provision.sql to where FIELDBRIDGE_PROVISION_SQL says. Each service's password is in FIELDBRIDGE_<SERVICE>_PASSWORD.
set -eu

sql=${FIELDBRIDGE_PROVISION_SQL:-/etc/fieldbridge/provision.sql}

provision() {
    # \getenv keeps the password off the command line; \gexec runs the statements that the query returns.
    {
        printf '%s\n' '\getenv password FIELDBRIDGE_SERVICE_PASSWORD'
        sed "s/\$1/:'name'/; s/\$2/:'password'/" "$sql"
        printf '%s\n' '\gexec'
    } | FIELDBRIDGE_SERVICE_PASSWORD=$2 psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --set "name=fieldbridge_$1" \
        --username "${POSTGRES_USER:-postgres}" --dbname "${POSTGRES_DB:-${POSTGRES_USER:-postgres}}"
}

provision intake "${FIELDBRIDGE_INTAKE_PASSWORD:?}"
provision matching "${FIELDBRIDGE_MATCHING_PASSWORD:?}"
provision scheduling "${FIELDBRIDGE_SCHEDULING_PASSWORD:?}"
provision reporting "${FIELDBRIDGE_REPORTING_PASSWORD:?}"
