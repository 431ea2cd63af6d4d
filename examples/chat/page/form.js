// Form of a question: the fields of the schemas that MCP allows in `elicitation/create`, built without any markup of
// the server. Text, numbers, booleans, one choice, and several choices.

/** Number of options up to which all of them are shown at once. */
const SHOWN_OPTIONS = 6;

/** Length from which a text gets several rows. */
const LONG_TEXT = 200;

const INPUTS = { email: 'email', uri: 'url', date: 'date', 'date-time': 'datetime-local' };

let lastId = 0;

/** Makes an element with properties and children. Children that are strings become text. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Returns the options of a choice as pairs of value and title; `null` where the schema is no choice. */
function optionsOf(schema) {
  const titled = schema.oneOf ?? schema.anyOf;
  if (titled) return titled.map((option) => [option.const, option.title ?? option.const]);
  return schema.enum?.map((value, n) => [value, schema.enumNames?.[n] ?? value]) ?? null;
}

/**
 * Builds the fields of a schema. Returns them with `read`, which returns the content of the answer. `read` is for a
 * form that the browser has found valid. Throws where a field has a form that MCP does not allow.
 */
export function buildFields(schema) {
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {}).map(([name, property]) => {
    const field = buildField(property, property.title ?? name, required.has(name));
    return { name, ...field };
  });
  const read = () => {
    const content = {};
    for (const { name, value } of fields) {
      const given = value();
      if (given !== undefined) content[name] = given;
    }
    return content;
  };
  return { elements: fields.map((field) => field.root), read };
}

function buildField(schema, title, isRequired) {
  const options = optionsOf(schema);
  if (schema.type === 'array') return several(schema, title, isRequired);
  if (options && options.length <= SHOWN_OPTIONS) return radios(schema, title, isRequired, options);
  if (options) return select(schema, title, isRequired, options);
  if (schema.type === 'boolean') return checkbox(schema, title);
  if (schema.type === 'number' || schema.type === 'integer') return number(schema, title, isRequired);
  if (schema.type === 'string') return text(schema, title, isRequired);
  throw new Error(`the field ${title} has the type ${schema.type}, which a form cannot show`);
}

/** Makes a field of one control, with its label and its description. */
function labelled(control, schema, title, isRequired) {
  control.id = `field-${++lastId}`;
  control.required = isRequired;
  const root = element('div', { className: 'field' });
  root.append(element('label', { htmlFor: control.id }, title, ...optional(isRequired)));
  describe(root, control, schema);
  root.append(control);
  return root;
}

/** Makes a field of several controls. */
function group(schema, title, isRequired, controls) {
  const root = element('fieldset', { className: 'field' }, element('legend', {}, title, ...optional(isRequired)));
  describe(root, root, schema);
  for (const [control, label] of controls) {
    root.append(element('label', { className: 'option' }, control, element('span', {}, label)));
  }
  return root;
}

function optional(isRequired) {
  return isRequired ? [] : [element('span', { className: 'muted' }, ' (optional)')];
}

function describe(root, control, schema) {
  if (!schema.description) return;
  const id = `field-${++lastId}`;
  root.append(element('p', { id, className: 'muted' }, schema.description));
  control.setAttribute('aria-describedby', id);
}

function text(schema, title, isRequired) {
  const isLong = schema.maxLength > LONG_TEXT && !schema.format;
  const control = element(isLong ? 'textarea' : 'input', { autocomplete: 'off' });
  if (!isLong) control.type = INPUTS[schema.format] ?? 'text';
  if (schema.minLength !== undefined) control.minLength = schema.minLength;
  if (schema.maxLength !== undefined) control.maxLength = schema.maxLength;
  if (schema.default !== undefined) control.value = schema.default;
  const root = labelled(control, schema, title, isRequired && schema.minLength !== 0);
  const value = () => {
    if (control.value === '') return isRequired ? '' : undefined;
    return schema.format === 'date-time' ? new Date(control.value).toISOString() : control.value;
  };
  return { root, value };
}

function number(schema, title, isRequired) {
  const step = schema.type === 'integer' ? '1' : 'any';
  const control = element('input', { type: 'number', step, inputMode: step === '1' ? 'numeric' : 'decimal' });
  if (schema.minimum !== undefined) control.min = schema.minimum;
  if (schema.maximum !== undefined) control.max = schema.maximum;
  if (schema.default !== undefined) control.value = schema.default;
  const root = labelled(control, schema, title, isRequired);
  return { root, value: () => (control.value === '' ? undefined : control.valueAsNumber) };
}

function checkbox(schema, title) {
  const control = element('input', { type: 'checkbox', checked: schema.default === true });
  const root = element('div', { className: 'field' });
  root.append(element('label', { className: 'option' }, control, element('span', {}, title)));
  describe(root, control, schema);
  return { root, value: () => control.checked };
}

function radios(schema, title, isRequired, options) {
  const name = `field-${++lastId}`;
  const controls = options.map(([value, label]) => {
    const checked = value === schema.default;
    return [element('input', { type: 'radio', name, value, checked, required: isRequired }), label];
  });
  const root = group(schema, title, isRequired, controls);
  return { root, value: () => controls.find(([control]) => control.checked)?.[0].value };
}

function select(schema, title, isRequired, options) {
  const control = element('select', {}, element('option', { value: '', textContent: 'Choose…' }));
  // By their index, as an option may be the empty text.
  options.forEach(([value, label], n) => {
    control.append(element('option', { value: n, textContent: label, selected: value === schema.default }));
  });
  const root = labelled(control, schema, title, isRequired);
  return { root, value: () => options[control.value]?.[0] };
}

function several(schema, title, isRequired) {
  const options = optionsOf(schema.items ?? {});
  if (!options) throw new Error(`the field ${title} names no options`);
  const least = Math.max(schema.minItems ?? 0, 0);
  const most = schema.maxItems ?? options.length;
  const controls = options.map(([value, label]) => {
    const checked = schema.default?.includes(value) ?? false;
    return [element('input', { type: 'checkbox', value, checked }), label];
  });
  const chosen = () => controls.filter(([control]) => control.checked).map(([control]) => control.value);
  const check = () => {
    const count = chosen().length;
    // A list that may be left out is valid when it is empty.
    const isValid = (count === 0 && !isRequired) || (count >= least && count <= most);
    const rule = least === most ? `Choose ${least}.` : `Choose ${least} to ${most}.`;
    controls[0]?.[0].setCustomValidity(isValid ? '' : rule);
  };
  const root = group(schema, title, isRequired, controls);
  root.addEventListener('change', check);
  check();
  return { root, value: () => (chosen().length === 0 && !isRequired ? undefined : chosen()) };
}
