export default defineEventHandler(async (event) => {
  const { password } = await readBody(event);
  if (password !== process.env.APP_PASSWORD) throw createError({ statusCode: 403 });
  await setUserSession(event, { user: { id: "u-17", name: "Ann" } });
  return "ok";
});
