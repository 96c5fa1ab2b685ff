export default defineNuxtConfig({ modules: ["nuxt-auth-utils"], telemetry: false, compatibilityDate: "2026-01-01", runtimeConfig: { session: { cookie: { secure: false } } } });
